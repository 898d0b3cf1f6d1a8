"""Compute beforehand what does not depend on an input."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

from onnxq.passes.base import GraphPass
from onnxq.passes.stacks import stack_of


class FoldConstants(GraphPass):
    """Constant folding through onnxscript, which leaves large results (weights) to the runtime.

    `If` is left to `FoldIf`, which also handles branches that return an outer value. Stacks of
    matrices that a MatMul reads transposed stay in their file: see `onnxq.passes.stacks`.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        result = optimizer.fold_constants(model, should_fold=_should_fold)
        return int(result.modified)


def _should_fold(node: ir.Node) -> bool | None:
    readers = [reader for reader, _ in node.outputs[0].uses()]
    is_stack = bool(readers) and all(stack_of(reader) for reader in readers)
    is_left = node.op_type == "If" or (node.op_type == "Transpose" and is_stack)
    return False if is_left else None
