"""The form of com.microsoft.MatMulNBits and GatherBlockQuantized: rows of bytes, low bits first.

See `onnxq.passes.lower.matmul_nbits` and `onnxq.passes.lower.gather_block_quantized`. Tables may
hold 4-bit tensors instead of bytes, whose zero points are 0 if there are none.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.forms.stored import (
    Part,
    StoredMatrix,
    alike,
    plain_codes,
    require,
    require_size,
    required_constant,
    scales,
    without_suffix,
)
from onnxq.passes.weights._packing import pack_rows, unpack_rows
from onnxq.types import Array

_DOMAIN = "com.microsoft"
_FLOAT_POINTS = "Quantize the float model again, with zero points that are integers."
_FORMS, _CODEBOOK = ("MatMulNBits", "GatherBlockQuantized"), "MatMulBnb4"
_DAMAGED = "The file is damaged: make it again."


def is_packed(node: ir.Node) -> bool:
    """Whether `node` reads a matrix in this form, or one of a codebook, which is refused."""
    return node.domain == _DOMAIN and node.op_type in (*_FORMS, _CODEBOOK)


def is_table(node: ir.Node) -> bool:
    """Whether the rows of the matrix are gathered; otherwise it is multiplied."""
    return node.op_type == "GatherBlockQuantized"


def bits_of(node: ir.Node) -> int:
    """The width of the codes that `node` reads."""
    return node.attributes.get_int("bits", 4)


def read(node: ir.Node) -> StoredMatrix:
    """The matrix that `node` reads.

    Raises:
        ModelError: It is not constant, not in the plain layout, not one of rows in blocks, not one
            of integers, or has float zero points.
    """
    return _read_table(node) if is_table(node) else _read_product(node)


def _read_product(node: ir.Node) -> StoredMatrix:
    integers = "Quantize the float model again, with 4 bits."
    require(
        node.op_type != _CODEBOOK, node, "its codes stand for the values of a codebook", integers
    )
    data, scale, points, order = [*node.inputs[1:], None, None, None][:4]
    prepacked = node.attributes.get_int("weight_prepacked", 0)
    again = "Convert the file that it was made of, or quantize the float model again."
    require(prepacked == 0, node, f"its codes are in a layout for CUDA ({prepacked})", again)
    require(order is None, node, "its rows are in another order (g_idx)", again)
    outputs, length = node.attributes.get_int("N", 0), node.attributes.get_int("K", 0)
    size, bits = node.attributes.get_int("block_size", 0), bits_of(node)
    fits = bits in (2, 4, 8) and size >= 16 and size & (size - 1) == 0 and min(outputs, length) > 0
    found = f"its attributes are bits {bits}, block_size {size}, N {outputs}, K {length}"
    require(fits, node, found, _DAMAGED)
    blocks = -(-length // size)
    codes = required_constant(node, data, "codes")
    require_size(node, codes, "codes", outputs * blocks * size * bits // 8)
    zero_points = None
    if points is not None:
        tensor = required_constant(node, points, "zero points")
        require(
            tensor.dtype == ir.DataType.UINT8, node, "its zero points are floats", _FLOAT_POINTS
        )
        require_size(node, tensor, "zero points", outputs * -(-blocks * bits // 8))
        zero_points = _packed_codes(tensor, outputs, blocks, bits)
    return StoredMatrix(
        key=(data, scale, points),
        name=without_suffix(data.name if data else None, "_codes"),
        bits=bits,
        block_size=size,
        outputs=outputs,
        length=length,
        by_rows=True,
        codes=_packed_codes(codes, outputs, length, bits),
        scales=scales(node, scale, outputs, blocks),
        zero_points=zero_points,
    )


def _read_table(node: ir.Node) -> StoredMatrix:
    data, _, scale, points = [*node.inputs, None][:4]
    reshape = data.producer() if data is not None else None
    if reshape is not None and reshape.op_type == "Reshape":
        data = reshape.inputs[0]  # the codes of a product
    codes = required_constant(node, data, "codes")
    shape = required_constant(node, scale, "scales").shape.numpy()
    axes = node.attributes.get_int("gather_axis", 0), node.attributes.get_int("quantize_axis", 1)
    of_rows = len(shape) == 2 and axes[0] in (0, -2) and axes[1] in (1, -1)
    found = f"it gathers along axis {axes[0]} of blocks along axis {axes[1]}, not rows of a matrix"
    require(of_rows, node, found, "Quantize the float model again for the other form.")
    outputs, blocks = shape
    bits, size = bits_of(node), node.attributes.get_int("block_size", 128)
    packed = codes.dtype == ir.DataType.UINT8
    length = codes.size // outputs * (8 // bits if packed else 1)
    found = f"its rows have {length} codes and {blocks} scales, which make no blocks of {size}"
    require(-(-length // size) == blocks, node, found, _DAMAGED)
    zero_points = None
    if points is not None:
        tensor = required_constant(node, points, "zero points")
        zero_points = (
            _packed_codes(tensor, outputs, blocks, bits) if packed else plain_codes(tensor, bits)
        )
    elif codes.dtype in (ir.DataType.UINT4, ir.DataType.UINT2):
        zero_points = alike(0, outputs, blocks)
    return StoredMatrix(
        key=(data, scale, points),
        name=without_suffix(data.name if data else None, "_codes"),
        bits=bits,
        block_size=size,
        outputs=outputs,
        length=length,
        by_rows=True,
        codes=_packed_codes(codes, outputs, length, bits) if packed else plain_codes(codes, bits),
        scales=scales(node, scale, outputs, blocks),
        zero_points=zero_points,
    )


def tensors(matrix: StoredMatrix, *, as_matrix: bool) -> dict[str, ir.LazyTensor]:
    """A matrix in this form, by a word for each of its tensors.

    Args:
        matrix: Read from the other form.
        as_matrix: Whether codes are [outputs, bytes] for a table, and not padded.
    """
    outputs, blocks, bits, rows = matrix.outputs, matrix.blocks, matrix.bits, matrix.by_rows
    block_bytes, middle = matrix.block_size * bits // 8, 1 << (bits - 1)
    row_bytes = -(-matrix.length * bits // 8) if as_matrix else blocks * block_bytes
    shape = (outputs, row_bytes) if as_matrix else (outputs, blocks, block_bytes)
    found = {
        "codes": matrix.codes.to(
            lambda codes: pack_rows(codes, rows, bits, 0, middle, row_bytes),
            ir.DataType.UINT8,
            shape,
            by_rows=rows,
        ),
        "scales": matrix.scales.to(
            lambda array: array, matrix.dtype, (outputs, blocks), by_rows=True
        ),
    }
    if matrix.zero_points is not None:
        zero_bytes = -(-blocks * bits // 8)
        found["zero_points"] = matrix.zero_points.to(
            lambda points: pack_rows(points, rows, bits, 0, 0, zero_bytes),
            ir.DataType.UINT8,
            (outputs, zero_bytes),
            by_rows=rows,
        )
    return found


def _packed_codes(tensor: ir.TensorProtocol, outputs: int, length: int, bits: int) -> Part:
    def unpack(array: Array, by_rows: bool) -> Array:
        return unpack_rows(array.reshape(outputs, -1), by_rows, bits, 0, length)

    return Part(tensor, unpack)
