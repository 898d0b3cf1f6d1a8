"""com.microsoft.MatMulNBits: ONNX Runtime's product with blockwise weights.

    Y[.., N] = A[.., K] x dequantize(B)^T + bias

B is uint8 [N, ceil(K / block_size), block_size * bits / 8], low bits first; scales
[N * ceil(K / block_size)] in A's type; zero points packed likewise, one row of
ceil(ceil(K / block_size) * bits / 8) bytes per output, absent if they are 2^(bits-1).
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes.edit import remove, replace_output
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import Array, PerBlock, QTensor

_BITS = 4
_MIDDLE = 1 << (_BITS - 1)
_DOMAIN = "com.microsoft"


class MatMulNBits(Lowering):
    """MatMul or Gemm with a constant weight becomes MatMulNBits."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        assert isinstance(op.weight.granularity, PerBlock)
        outputs, reduced = _matrix(op, lazy)
        inputs = [node.inputs[op.operands.activation], *self.constants(op, lazy)]
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        fused_bias = bias is not None and bias.shape is not None and bias.shape == (outputs,)
        if fused_bias:
            inputs += [None] * (5 - len(inputs)) + [bias]
        old = node.outputs[0]
        output = self.editor.node(
            "MatMulNBits",
            inputs,
            name=f"{op.node}_MatMulNBits",
            before=node,
            domain=_DOMAIN,
            attributes={
                "K": reduced,
                "N": outputs,
                "bits": _BITS,
                "block_size": op.weight.granularity.size,
            },
            dtype=op.operands.weight.dtype,
            shape=old.shape,
        )
        if bias is not None and not fused_bias:
            output = self.editor.node(
                "Add",
                [output, bias],
                name=f"{op.node}_bias",
                before=node,
                dtype=op.operands.weight.dtype,
            )
        replace_output(old, output)
        remove([node])

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        assert isinstance(op.weight.granularity, PerBlock)
        rows_are_outputs = op.operands.output_axis == 0
        outputs, reduced = _matrix(op, lazy)
        size = op.weight.granularity.size
        blocks = -(-reduced // size)
        # Codes of signed formats are stored with the middle of the unsigned range added.
        shift = _MIDDLE - formats.get(op.weight.format).middle

        def by_output(array: Array) -> Array:
            return array if rows_are_outputs else array.T

        def codes(quantized: QTensor) -> Array:
            unsigned = (by_output(quantized.codes) + shift).astype(np.uint8)
            padding = blocks * size - reduced
            if padding:
                unsigned = np.pad(unsigned, ((0, 0), (0, padding)), constant_values=_MIDDLE)
            return _pack(unsigned).reshape(outputs, blocks, size * _BITS // 8)

        def scales(quantized: QTensor) -> Array:
            return by_output(quantized.params.scale).reshape(-1)

        def zero_points(quantized: QTensor) -> Array:
            return _pack(by_output(quantized.params.zero_point)).reshape(-1)

        dtype = op.operands.weight.dtype or ir.DataType.FLOAT
        packed = (outputs, blocks, size * _BITS // 8)
        parts = {
            "codes": lazy.part(codes, ir.DataType.UINT8, packed),
            "scales": lazy.part(scales, dtype, (outputs * blocks,)),
        }
        if not op.weight.symmetric:
            count = outputs * -(-blocks * _BITS // 8)
            parts["zero_points"] = lazy.part(zero_points, ir.DataType.UINT8, (count,))
        return parts


def _matrix(op: PlannedOp, lazy: LazyWeight) -> tuple[int, int]:
    """The number of outputs N and of summands K."""
    assert op.operands.reduced_axis is not None
    shape = lazy.source.shape.numpy()
    return shape[op.operands.output_axis], shape[op.operands.reduced_axis]


def _pack(codes: Array) -> Array:
    """Two 4-bit codes a byte along the last axis, the first in the low nibble."""
    if codes.shape[-1] % 2:
        codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, 1)])
    return np.asarray(codes[..., 0::2] | codes[..., 1::2] << 4, dtype=np.uint8)


LOWERING = MatMulNBits
