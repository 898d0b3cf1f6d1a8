"""Remove Identity nodes, so that producers and consumers see each other."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import all_graphs, remove, rewire


class RemoveIdentity(GraphPass):
    """Readers of an Identity read its input instead.

    One that gives a graph output its name stays: the name is the model's interface, and a branch
    of an `If` may return an outer value only through a node of its own.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        found = [
            node
            for graph in all_graphs(model)
            for node in graph
            if node.op_type == "Identity" and not node.outputs[0].is_graph_output()
        ]
        for node in found:
            source = node.inputs[0]
            assert source is not None
            rewire(node.outputs[0].uses(), source)
            remove([node])
        return len(found)
