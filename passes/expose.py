"""Values inside the branches of an `If` and the body of a `Loop`, readable from outside.

A value of a branch becomes an output of its `If`; the other branch gives an empty tensor in its
place. A value of a body has another shape in each iteration, so it goes into a sequence that the
`Loop` carries on:

    s = SequenceEmpty()          body of the Loop:  s' = SequenceInsert(s, value)

A sum has one shape, and is added up over the iterations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import Editor
from onnxq.types import Array

_Path = Sequence[tuple[ir.Node, ir.Graph]]


def readable_graphs(model: ir.Model) -> dict[ir.Graph, ir.Node | None]:
    """The main graph, the branches of each `If` and the body of each `Loop` in them.

    Returns:
        The node of each branch and body; None for the main graph.
    """
    return dict(_readable(model.graph, None))


def _readable(graph: ir.Graph, parent: ir.Node | None) -> Iterator[tuple[ir.Graph, ir.Node | None]]:
    yield graph, parent
    for node in graph:
        if node.op_type in ("If", "Loop") and not node.domain:
            for inner in _graphs(node):
                yield from _readable(inner, node)


def values_by_name(model: ir.Model) -> dict[str, ir.Value]:
    """What readable graphs take in and compute."""
    values: dict[str, ir.Value] = {}
    for graph in readable_graphs(model):
        values.update((value.name or "", value) for value in graph.inputs)
        values.update((value.name or "", value) for node in graph for value in node.outputs)
    return values


class Exposer:
    """Exposes values of one model.

    Args:
        editor: Of the model.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._parents: Mapping[ir.Graph, ir.Node | None] = readable_graphs(editor.model)

    def expose(self, value: ir.Value) -> ir.Value:
        """`value` as the main graph sees it: itself, an output of an `If`, or a sequence.

        A `Loop` that has scan outputs gets other values for them, of the same names.
        """
        path = self._path(value)
        if any(node.op_type == "Loop" for node, _ in path):
            return self._record(value, self._start(value), path)
        for node, graph in reversed(path):
            value = self._branch_output(node, graph, value, [0])
        return value

    def total(self, value: ir.Value) -> ir.Value:
        """`value`, a sum of known shape, over all iterations; zero in a branch not taken."""
        for node, graph in reversed(self._path(value)):
            if node.op_type == "Loop":
                value = self._sum_of_iterations(node, graph, value)
            else:
                assert value.shape is not None
                value = self._branch_output(node, graph, value, value.shape.numpy())
        return value

    def _path(self, value: ir.Value) -> _Path:
        """The nodes around `value`, each with its graph that holds it, the outermost first."""
        path: list[tuple[ir.Node, ir.Graph]] = []
        graph = value.graph
        while isinstance(graph, ir.Graph) and (node := self._parents[graph]) is not None:
            path.insert(0, (node, graph))
            graph = node.graph
        return path

    def _branch_output(
        self, node: ir.Node, graph: ir.Graph, value: ir.Value, otherwise: Sequence[int]
    ) -> ir.Value:
        """`value` of a branch; zeros of the shape `otherwise` if the branch is not taken."""
        dtype = value.dtype or ir.DataType.FLOAT
        for branch in _graphs(node):
            zeros = self._constant(f"{branch.name}_nothing", np.zeros(otherwise, dtype.numpy()))
            branch.outputs.append(self._own(branch, value if branch is graph else zeros, dtype))
        output = self._added_output(node, value, ir.TensorType(dtype))
        output.shape = value.shape if value.shape == otherwise else None
        return output

    def _sum_of_iterations(self, node: ir.Node, graph: ir.Graph, value: ir.Value) -> ir.Value:
        dtype = value.dtype or ir.DataType.FLOAT
        graph.outputs.append(self._own(graph, value, dtype))
        return self._editor.node(
            "ReduceSum",
            [
                self._added_output(node, value, ir.TensorType(dtype)),
                self._constant(f"{value.name}_iterations", np.zeros(1, np.int64)),
            ],
            name=f"{value.name}_total",
            after=node,
            attributes={"keepdims": 0},
            dtype=dtype,
            shape=value.shape,
        )

    def _record(self, value: ir.Value, sequence: ir.Value, path: _Path) -> ir.Value:
        """`sequence` with what `value` is while the outermost node of `path` runs."""
        if not path:
            assert isinstance(value.graph, ir.Graph)
            return self._inserted(value.graph, sequence, value)
        node, graph = path[0]
        if node.op_type == "Loop":
            name = self._editor.names.new(f"{value.name}_before")
            before = ir.Value(name=name, type=sequence.type)
            graph.inputs.append(before)
            after = self._record(value, before, path[1:])
            return self._carried(node, graph, sequence, after)
        dtype = value.dtype or ir.DataType.FLOAT
        nothing = self._constant(f"{value.name}_nothing", np.zeros(0, dtype.numpy()))
        for branch in _graphs(node):
            branch.outputs.append(
                self._record(value, sequence, path[1:])
                if branch is graph
                else self._inserted(branch, sequence, nothing)
            )
        return self._added_output(node, value, sequence.type)

    def _carried(
        self, node: ir.Node, body: ir.Graph, before: ir.Value, after: ir.Value
    ) -> ir.Value:
        """Let the Loop carry one more value on; scan outputs move behind it."""
        index = len(body.inputs) - 3  # behind the iteration, the condition, and this one
        node.resize_inputs(index + 3)
        node.replace_input_with(index + 2, before)
        body.outputs.insert(index + 1, after)
        output = self._added_output(node, after, after.type)
        for old, new in reversed(list(itertools.pairwise(node.outputs[index:]))):
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            old.name, new.name = new.name, old.name
            old.type, new.type = new.type, old.type
            old.shape, new.shape = new.shape, old.shape
            output = old
        return output

    def _start(self, value: ir.Value) -> ir.Value:
        dtype = value.dtype or ir.DataType.FLOAT
        start = self._editor.node(
            "SequenceEmpty",
            [],
            name=f"{value.name}_start",
            graph=self._editor.model.graph,
            attributes={"dtype": int(dtype)},
        )
        start.type = ir.SequenceType(ir.TensorType(dtype))
        return start

    def _inserted(self, graph: ir.Graph, sequence: ir.Value, value: ir.Value) -> ir.Value:
        """`sequence` with `value` at its end, computed in `graph`."""
        producer = value.producer()
        longer = self._editor.node(
            "SequenceInsert",
            [sequence, value],
            name=f"{value.name}_inserted",
            after=producer,
            graph=graph,
        )
        longer.type = sequence.type
        return longer

    def _own(self, graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` as something that `graph` computes and that is no output of it yet.

        A graph may not return what is outside of it; ONNX Runtime does not return a value twice.
        """
        if value.graph is graph and value.producer() is not None and not value.is_graph_output():
            return value
        return self._editor.node(
            "Identity",
            [value],
            name=f"{value.name}_again",
            after=value.producer(),
            graph=graph,
            dtype=dtype,
            shape=value.shape,
        )

    def _added_output(
        self, node: ir.Node, value: ir.Value, kind: ir.TypeProtocol | None
    ) -> ir.Value:
        node.resize_outputs(len(node.outputs) + 1)
        output = node.outputs[-1]
        output.name = self._editor.names.new(f"{value.name}_exposed")
        output.type = kind
        return output

    def _constant(self, name: str, array: Array) -> ir.Value:
        return self._editor.initializer(self._editor.model.graph, name, array)


def _graphs(node: ir.Node) -> list[ir.Graph]:
    return [attribute.as_graph() for attribute in node.attributes.values()]
