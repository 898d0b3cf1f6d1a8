"""Remove nodes and weights that nothing reads, in branches and loops too."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import all_graphs


class RemoveUnused(GraphPass):
    """`onnx_ir`'s pass, which leaves the unused initializers of inner graphs where they are."""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        removed = int(common.RemoveUnusedNodesPass()(model).modified)
        for graph in all_graphs(model):
            for name, value in list(graph.initializers.items()):
                if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                    graph.initializers.pop(name)
                    removed += 1
        return removed
