"""com.microsoft.MatMulBnb4: ONNX Runtime's product with codes of a codebook.

    Y[.., N] = A[.., K] x (levels[B] * absmax)^T

B is uint8 [N * K / 2], the codes of each output one after another, the high bits of a byte first;
absmax [N * K / block_size] in A's type, what the levels of each block are multiplied by.
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)

On the CPU the kernel takes float32 and makes floats of the whole weight in every run, and then
multiplies: the file is small, the product not fast. On CUDA single rows are multiplied by codes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import remove, replace_output
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.passes.weights._packing import pack_rows
from onnxq.types import Array, PerBlock, QTensor

_DOMAIN = "com.microsoft"
_QUANT_TYPES = {"nf4": 1}


class MatMulBnb4(Lowering):
    """MatMul or Gemm with a constant weight becomes MatMulBnb4."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        assert isinstance(op.weight.granularity, PerBlock)
        assert op.operands.reduced_axis is not None
        shape, dtype = lazy.source.shape.numpy(), op.operands.weight.dtype
        old = node.outputs[0]
        output = self.editor.node(
            "MatMulBnb4",
            [node.inputs[op.operands.activation], *self.constants(op, lazy)],
            name=f"{node.name}_MatMulBnb4",
            before=node,
            domain=_DOMAIN,
            attributes={
                "K": shape[op.operands.reduced_axis],
                "N": shape[op.operands.output_axis],
                "block_size": op.weight.granularity.size,
                "quant_type": _QUANT_TYPES[op.weight.format],
            },
            dtype=dtype,
            shape=old.shape,
        )
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        if bias is not None:
            output = self.editor.node(
                "Add", [output, bias], name=f"{node.name}_bias", before=node, dtype=dtype
            )
        replace_output(old, output)
        remove([node])

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        assert isinstance(op.weight.granularity, PerBlock)
        assert op.operands.reduced_axis is not None
        shape, rows_are_outputs = lazy.source.shape.numpy(), op.operands.output_axis == 0
        reduced, size = shape[op.operands.reduced_axis], op.weight.granularity.size

        def codes(quantized: QTensor) -> Array:
            low_first = pack_rows(quantized.codes, rows_are_outputs, 4, 0, 0, reduced // 2)
            return (low_first << 4 | low_first >> 4).reshape(-1)

        def scales(quantized: QTensor) -> Array:
            found = quantized.params.scale
            return np.ascontiguousarray(found if rows_are_outputs else found.T).reshape(-1)

        elements = int(np.prod(shape))
        dtype = op.operands.weight.dtype or ir.DataType.FLOAT
        return {
            "codes": lazy.part(codes, ir.DataType.UINT8, (elements // 2,)),
            "absmax": lazy.part(scales, dtype, (elements // size,)),
        }


LOWERING = MatMulBnb4
