"""The form of DequantizeLinear with a block size: codes in a tensor type of their own width.

Codes are [length, outputs], as the weight of MatMul is, with blocks along axis 0, or [outputs,
length], with blocks along axis 1; scales and zero points likewise, one for each block. Zero points
that are the middle of the range are those of signed codes, which need none.
(https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes.forms.stored import (
    StoredMatrix,
    alike,
    plain_codes,
    require,
    required_constant,
    scales,
    without_suffix,
)
from onnxq.types import Array

_WIDTHS = {
    **{ir.DataType.INT2: 2, ir.DataType.INT4: 4, ir.DataType.INT8: 8},
    **{ir.DataType.UINT2: 2, ir.DataType.UINT4: 4, ir.DataType.UINT8: 8},
}


def is_blockwise(node: ir.Node) -> bool:
    """Whether `node` dequantizes an initializer in blocks."""
    return (
        node.op_type == "DequantizeLinear"
        and node.domain == ""
        and node.attributes.get_int("block_size", 0) > 0
        and node.inputs[0] is not None
        and node.inputs[0].is_initializer()
    )


def opset(bits: int) -> int:
    """The lowest opset whose DequantizeLinear takes codes of this width in blocks."""
    return max(formats.get(f"int{bits}").opset, 21)


def axis(node: ir.Node) -> int:
    """Along which the blocks of a DequantizeLinear of a matrix lie: 0 or 1."""
    return node.attributes.get_int("axis", 1) % 2


def read(node: ir.Node) -> StoredMatrix:
    """The matrix that `node` dequantizes.

    Raises:
        ModelError: It is no matrix of integers up to 8 bits, or its blocks are of a size that
            MatMulNBits has not.
    """
    data, scale, points = [*node.inputs, None][:3]
    codes = required_constant(node, data, "codes")
    bits, shape = _WIDTHS.get(codes.dtype), codes.shape.numpy()
    instead = "Leave it in this form."
    require(bits is not None, node, f"its codes are {codes.dtype.name.lower()}", instead)
    require(len(shape) == 2, node, f"its codes have {len(shape)} dimensions, not 2", instead)
    assert bits is not None
    size = node.attributes.get_int("block_size", 0)
    found = f"its blocks of {size} are no power of two from 16 on"
    require(size >= 16 and size & (size - 1) == 0, node, found, instead)
    by_rows = axis(node) == 1
    outputs, length = shape if by_rows else shape[::-1]
    blocks = -(-length // size)
    zero_points = None
    if points is not None:
        tensor = required_constant(node, points, "zero points")
        zero_points = plain_codes(tensor, bits, by_rows=by_rows)
    elif codes.dtype in (ir.DataType.UINT2, ir.DataType.UINT4, ir.DataType.UINT8):
        zero_points = alike(0, outputs, blocks)
    return StoredMatrix(
        key=(data, scale, points),
        name=without_suffix(data.name if data else None, "_codes"),
        bits=bits,
        block_size=size,
        outputs=outputs,
        length=length,
        by_rows=by_rows,
        codes=plain_codes(codes, bits, by_rows=by_rows),
        scales=scales(node, scale, outputs, blocks, by_rows=by_rows),
        zero_points=zero_points,
    )


def tensors(matrix: StoredMatrix, *, by_rows: bool) -> dict[str, ir.LazyTensor]:
    """A matrix in this form, by a word for each of its tensors.

    Args:
        matrix: Read from the other form.
        by_rows: Whether codes are [outputs, length]; otherwise [length, outputs].
    """
    signed = matrix.zero_points is None
    dtype = formats.get(f"{'' if signed else 'u'}int{matrix.bits}").dtype
    middle = np.uint8(1 << (matrix.bits - 1)) if signed else np.uint8(0)

    def codes(array: Array) -> Array:
        moved = array - middle
        return moved.view(np.int8) if signed else moved

    shape = (matrix.outputs, matrix.length)
    blocks = (matrix.outputs, matrix.blocks)
    if not by_rows:
        shape, blocks = shape[::-1], blocks[::-1]
    found = {
        "codes": matrix.codes.to(codes, dtype, shape, by_rows=by_rows),
        "scale": matrix.scales.to(lambda array: array, matrix.dtype, blocks, by_rows=by_rows),
    }
    if matrix.zero_points is not None:
        found["zero_point"] = matrix.zero_points.to(
            lambda points: points, dtype, blocks, by_rows=by_rows
        )
    return found
