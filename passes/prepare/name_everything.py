"""Give every node and value a name that nothing else has."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import all_graphs


class NameEverything(GraphPass):
    """Names that exist and are unique stay; others get one from the op, or a number behind it.

    Reports name nodes, statistics name values, and runtimes refuse duplicates.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        edits = int(common.NameFixPass()(model).modified)
        taken = {node.name for graph in all_graphs(model) for node in graph if node.name}
        count = 0
        for graph in all_graphs(model):
            for node in graph:
                if node.name:
                    continue
                while (name := f"{node.op_type}_{count}") in taken:
                    count += 1
                taken.add(name)
                node.name = name
                edits += 1
        return edits
