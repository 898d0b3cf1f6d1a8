"""Values inside the branches of an `If`, readable from outside as outputs of the `If`.

The branch that does not compute the value gives an empty tensor in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import Editor, graph_of


def in_branches(model: ir.Model) -> dict[ir.Graph, ir.Node | None]:
    """The graphs that run at most once: the main graph, and the branches of each `If` in them.

    Returns:
        The `If` of each branch; None for the main graph.
    """
    return dict(_branches(model.graph, None))


def _branches(graph: ir.Graph, parent: ir.Node | None) -> Iterator[tuple[ir.Graph, ir.Node | None]]:
    yield graph, parent
    for node in graph:
        if node.op_type == "If" and not node.domain:
            for attribute in node.attributes.values():
                yield from _branches(attribute.as_graph(), node)


class Exposer:
    """Exposes values of one model.

    Args:
        editor: Of the model.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._parents: Mapping[ir.Graph, ir.Node | None] = in_branches(editor.model)

    def expose(self, value: ir.Value) -> ir.Value:
        """`value` as the main graph sees it: itself, or an output of an `If`."""
        producer = value.producer()
        if producer is None:
            return value
        graph = graph_of(producer)
        outer = self._parents[graph]
        if outer is None:
            return value
        dtype = value.dtype or ir.DataType.FLOAT
        if value.is_graph_output():  # ONNX Runtime gives a value once
            value = self._same(value)
        for attribute in outer.attributes.values():
            branch = attribute.as_graph()
            branch.outputs.append(value if branch is graph else self._empty(branch, dtype))
        outer.resize_outputs(len(outer.outputs) + 1)
        output = outer.outputs[-1]
        output.name = self._editor.names.new(f"{value.name}_exposed")
        output.dtype = dtype
        return self.expose(output)

    def _same(self, value: ir.Value) -> ir.Value:
        return self._editor.node(
            "Identity",
            [value],
            name=f"{value.name}_again",
            after=value.producer(),
            dtype=value.dtype,
            shape=value.shape,
        )

    def _empty(self, branch: ir.Graph, dtype: ir.DataType) -> ir.Value:
        """An empty tensor computed in `branch`; a branch may not return what is outside of it."""
        name = f"{branch.name}_nothing"
        constant = self._editor.initializer(
            self._editor.model.graph, name, ir.Tensor(np.empty(0, dtype.numpy()), dtype=dtype)
        )
        return self._editor.node("Identity", [constant], name=name, graph=branch, dtype=dtype)
