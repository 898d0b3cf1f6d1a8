"""Compute beforehand what does not depend on an input."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

from onnxq.passes.base import GraphPass


class FoldConstants(GraphPass):
    """Constant folding through onnxscript, which leaves large results (weights) to the runtime.

    `If` is left to `FoldIf`, which also handles branches that return an outer value.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        result = optimizer.fold_constants(model, should_fold=_unless_if)
        return int(result.modified)


def _unless_if(node: ir.Node) -> bool | None:
    return False if node.op_type == "If" else None
