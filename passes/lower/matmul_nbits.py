"""com.microsoft.MatMulNBits: ONNX Runtime's product with blockwise weights.

    Y[.., N] = A[.., K] x dequantize(B)^T + bias

B is uint8 [N, ceil(K / block_size), block_size * bits / 8], low bits first; scales
[N, ceil(K / block_size)] in A's type; zero points in A's type likewise, or packed as one row of
ceil(ceil(K / block_size) * bits / 8) bytes per output, absent if they are 2^(bits-1).
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes.edit import Editor, remove, replace_output
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.passes.weights._packing import pack_rows
from onnxq.types import Array, PerBlock

_DOMAIN = "com.microsoft"


class MatMulNBits(Lowering):
    """MatMul or Gemm with a constant weight becomes MatMulNBits."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        assert isinstance(op.weight.granularity, PerBlock)
        outputs, reduced = _matrix(op, lazy)
        level = {"accuracy_level": op.accuracy_level} if op.accuracy_level else {}
        write_product(
            self.editor,
            node,
            node.inputs[op.operands.activation],
            self.constants(op, lazy),
            {
                "K": reduced,
                "N": outputs,
                "bits": formats.get(op.weight.format).bits,
                "block_size": op.weight.granularity.size,
                **level,
            },
            op.operands.weight.dtype,
        )

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        return packed_parts(op, lazy)


def write_product(
    editor: Editor,
    node: ir.Node,
    activation: ir.Value | None,
    constants: Sequence[ir.Value],
    attributes: Mapping[str, int],
    dtype: ir.DataType | None,
) -> ir.Node:
    """Replace the MatMul or Gemm `node` by MatMulNBits.

    Args:
        editor: Of the model.
        node: A Gemm has alpha and beta 1.
        activation: What it multiplies.
        constants: Codes, scales and perhaps zero points.
        attributes: Of the new node.
        dtype: Of its output.
    """
    inputs = [activation, *constants]
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    fused_bias = bias is not None and bias.shape is not None and bias.shape == (attributes["N"],)
    if fused_bias:
        inputs += [None] * (5 - len(inputs)) + [bias]
    old = node.outputs[0]
    output = editor.node(
        "MatMulNBits",
        inputs,
        name=f"{node.name}_MatMulNBits",
        before=node,
        domain=_DOMAIN,
        attributes=attributes,
        dtype=dtype,
        shape=old.shape,
    )
    product = output.producer()
    assert product is not None
    if bias is not None and not fused_bias:
        output = editor.node(
            "Add", [output, bias], name=f"{node.name}_bias", before=node, dtype=dtype
        )
    replace_output(old, output)
    remove([node])
    return product


def packed_parts(
    op: PlannedOp, lazy: LazyWeight, *, as_matrix: bool = False
) -> dict[str, ir.LazyTensor]:
    """The tensors of a weight whose rows of codes are packed.

    Args:
        op: As planned.
        lazy: Its weight.
        as_matrix: Whether codes are [N, ceil(K * bits / 8)] and not padded.
    """
    assert isinstance(op.weight.granularity, PerBlock)
    rows_are_outputs = op.operands.output_axis == 0
    outputs, reduced = _matrix(op, lazy)
    size = op.weight.granularity.size
    blocks = -(-reduced // size)
    number_format = formats.get(op.weight.format)
    bits = number_format.bits
    # Codes of signed formats are stored with the middle of the unsigned range added.
    middle = 1 << (bits - 1)
    block_bytes = size * bits // 8
    row_bytes = -(-reduced * bits // 8) if as_matrix else blocks * block_bytes
    packed = (outputs, row_bytes) if as_matrix else (outputs, blocks, block_bytes)
    zero_bytes = -(-blocks * bits // 8)
    dtype = op.operands.weight.dtype or ir.DataType.FLOAT

    def pack(array: Array, row_bytes: int, padding: int) -> Array:
        codes = array.view(np.uint8)
        shift = middle - number_format.middle
        return pack_rows(codes, rows_are_outputs, bits, shift, padding, row_bytes)

    def by_output(array: Array) -> Array:
        return array if rows_are_outputs else np.ascontiguousarray(array.T)

    parts = {
        "codes": lazy.part(
            lambda q: pack(q.codes, row_bytes, middle).reshape(-1, *packed[1:]),
            ir.DataType.UINT8,
            packed,
            outputs=0,
        ),
        "scales": lazy.part(
            lambda q: by_output(q.params.scale), dtype, (outputs, blocks), outputs=0
        ),
    }
    if op.weight.float_zero_point:
        parts["zero_points"] = lazy.part(
            lambda q: by_output(q.params.zero_point), dtype, (outputs, blocks), outputs=0
        )
    elif not op.weight.symmetric:
        parts["zero_points"] = lazy.part(
            lambda q: pack(q.params.zero_point, zero_bytes, 0),
            ir.DataType.UINT8,
            (outputs, zero_bytes),
            outputs=0,
        )
    return parts


def _matrix(op: PlannedOp, lazy: LazyWeight) -> tuple[int, int]:
    """The number of outputs N and of summands K."""
    assert op.operands.reduced_axis is not None
    shape = lazy.source.shape.numpy()
    return shape[op.operands.output_axis], shape[op.operands.reduced_axis]


LOWERING = MatMulNBits
