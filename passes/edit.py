"""The only place that rewires a graph: new names, new constants, new nodes, replaced values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.types import Array


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every graph nested in an If, Loop or Scan."""
    yield from _nested(model.graph)


def _nested(graph: ir.Graph) -> Iterator[ir.Graph]:
    yield graph
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _nested(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    yield from _nested(inner)


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that holds `node`."""
    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"Node '{node.name}' is in no graph; expected a node of a model.")
    return node.graph


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer that nothing can override, else None."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def constant_array(value: ir.Value | None) -> Array | None:
    """The contents of an initializer that nothing can override, else None."""
    tensor = constant(value)
    return None if tensor is None else tensor.numpy()


class Names:
    """Names that no value or node of a model has yet."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for graph in all_graphs(model):
            self._taken.update(value.name for value in graph.inputs if value.name)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.update(value.name for value in node.outputs if value.name)
                self._taken.add(node.name or "")

    def new(self, wish: str) -> str:
        """`wish`, or `wish` with a number behind it; taken from now on."""
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name


class Editor:
    """Edits on one model, with names that stay unique."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.names = Names(model)

    def initializer(
        self, graph: ir.Graph, name: str, tensor: ir.TensorProtocol | Array
    ) -> ir.Value:
        """A new constant of `graph`; an array becomes a tensor of its own dtype."""
        if isinstance(tensor, np.ndarray):
            tensor = ir.Tensor(tensor)
        name = self.names.new(name)
        tensor.name = name
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=tensor.shape,  # type: ignore[arg-type]
            const_value=tensor,
        )
        graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        name: str,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
        graph: ir.Graph | None = None,
        domain: str = "",
        num_outputs: int = 1,
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
        dtype: ir.DataType | None = None,
        shape: ir.Shape | None = None,
    ) -> ir.Value:
        """Insert a node and return its first output.

        The node goes before or after the node named, or to the start of `graph`.
        """
        node = ir.node(
            op_type,
            inputs,
            attributes=attributes,
            domain=domain,
            name=self.names.new(name),
            num_outputs=num_outputs,
        )
        for each in node.outputs:
            each.name = self.names.new(f"{name}_output")
        output = node.outputs[0]
        if dtype is not None:
            output.dtype = dtype
        output.shape = shape
        if before is not None:
            graph_of(before).insert_before(before, node)
        elif after is not None:
            graph_of(after).insert_after(after, node)
        elif graph is not None and len(graph):
            graph.insert_before(graph[0], node)
        elif graph is not None:
            graph.append(node)
        if domain:
            self.model.opset_imports.setdefault(domain, 1)
        return output

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Node:
        """Insert behind `node`, which has one output, the same op on other inputs."""
        twin = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            name=self.names.new(f"{node.name}_copy"),
            num_outputs=1,
        )
        old, new = node.outputs[0], twin.outputs[0]
        new.name = self.names.new(f"{old.name}_copy")
        new.type, new.shape = old.type, old.shape
        graph_of(node).insert_after(node, twin)
        return twin


def rewire(uses: Iterable[tuple[ir.Node, int]], value: ir.Value) -> None:
    """Make each (node, input index) of a snapshot of uses read `value`."""
    for node, index in list(uses):
        node.replace_input_with(index, value)


def replace_output(old: ir.Value, new: ir.Value) -> None:
    """Make all readers of `old` read `new`, graph outputs included; `new` takes over its name."""
    name, dtype, shape = old.name, old.dtype, old.shape
    is_output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=is_output)
    if is_output:
        old.name = None
        new.name = name
    if dtype is not None:
        new.dtype = dtype
    new.shape = shape if shape is not None else new.shape


def remove(nodes: Iterable[ir.Node]) -> None:
    """Remove nodes that nothing reads any more."""
    for node in nodes:
        graph_of(node).remove(node, safe=True)
