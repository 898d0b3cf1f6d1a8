"""Replace an `If` whose condition is known by the branch it takes."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import all_graphs, constant_array, graph_of, replace_output


class FoldIf(GraphPass):
    """Move the nodes of the branch taken to where the `If` stands. Inner ones first."""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        known = [
            node
            for graph in reversed(list(all_graphs(model)))
            for node in graph
            if node.op_type == "If" and constant_array(node.inputs[0]) is not None
        ]
        for node in known:
            _take_branch(node)
        return len(known)


def _take_branch(node: ir.Node) -> None:
    condition = constant_array(node.inputs[0])
    assert condition is not None
    branch = node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()
    results = list(branch.outputs)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name)  # type: ignore[arg-type]
        graph_of(node).register_initializer(value)
    moved = list(branch)
    branch.remove(moved)
    graph_of(node).insert_before(node, moved)
    for old, new in zip(node.outputs, results, strict=True):
        if old.is_graph_output() and (new.is_graph_input() or new.is_graph_output()):
            identity = ir.node("Identity", [new])
            graph_of(node).insert_before(node, identity)
            new = identity.outputs[0]  # noqa: PLW2901
        replace_output(old, new)
    graph_of(node).remove(node, safe=True)
