"""Gather of int8 rows with one scale each, in ops that every runtime has.

See `onnxq.passes.gather_rows`. Scales are float32, as those of products with scales found at run
time, with which a table may share its codes.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq import formats
from onnxq.passes.gather_rows import gather_rows
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight


class GatherDequantize(Lowering):
    """Gather of a float table becomes Gather of its codes, which are dequantized then."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        codes, scale = self.constants(op, lazy)
        gather_rows(self.editor, node, codes, scale)

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        rows, length = lazy.source.shape.numpy()
        return {
            "codes": lazy.part(
                lambda q: q.codes, formats.get(op.weight.format).dtype, (rows, length)
            ),
            "scale": lazy.part(lambda q: q.params.scale, ir.DataType.FLOAT, (rows,)),
        }


LOWERING = GatherDequantize
