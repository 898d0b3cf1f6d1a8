"""com.microsoft.GatherBlockQuantized: ONNX Runtime's Gather of blockwise weights.

    Y[.., L] = dequantize(data[indices])

Scales are [rows, ceil(L / block_size)] in Y's type. Codes of 4 bits are a tensor of that type,
[rows, L], as are their zero points: releases of ONNX Runtime read it that read no bytes, and so
does OpenVINO. Others are uint8 [rows, L * bits / 8], low bits first, with zero points packed as one
row of bytes each, absent if they are 2^(bits-1): the weight of MatMulNBits with N = rows and K = L,
but for its third axis. A table that shares its codes with such a product reads them through a
Reshape, which ONNX Runtime computes when it loads the model.
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes.edit import Editor, remove, replace_output
from onnxq.passes.lower.base import Lowering
from onnxq.passes.lower.block_dequantize import plain_parts
from onnxq.passes.lower.matmul_nbits import packed_parts
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import PerBlock

_DOMAIN = "com.microsoft"
_TYPED_BITS, _TYPED_IR_VERSION = 4, 10  # the first version of files with such tensors


class GatherBlockQuantized(Lowering):
    """Gather of rows of a constant table becomes GatherBlockQuantized."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        assert isinstance(op.weight.granularity, PerBlock)
        bits, size = formats.get(op.weight.format).bits, op.weight.granularity.size
        write_table(self.editor, node, self.constants(op, lazy), bits, size, tied=op.tied)

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        if is_typed(formats.get(op.weight.format).bits, tied=op.tied):
            return plain_parts(op, lazy)
        return packed_parts(op, lazy, as_matrix=not op.tied)


def is_typed(bits: int, *, tied: bool) -> bool:
    """Whether the codes of a table are a tensor of `bits` bits; otherwise they are bytes."""
    return bits == _TYPED_BITS and not tied


def write_table(
    editor: Editor,
    node: ir.Node,
    constants: Sequence[ir.Value],
    bits: int,
    block_size: int,
    *,
    tied: bool,
) -> ir.Node:
    """Replace the Gather `node` by GatherBlockQuantized.

    Args:
        editor: Of the model.
        node: Gathers rows.
        constants: Codes, scales and perhaps zero points.
        bits: Of a code.
        block_size: Codes that share a scale.
        tied: Whether the codes are in the form of MatMulNBits.
    """
    codes, *params = constants
    old = node.outputs[0]
    attributes = {"block_size": block_size, "gather_axis": 0, "quantize_axis": 1}
    if is_typed(bits, tied=tied):
        editor.model.ir_version = max(editor.model.ir_version, _TYPED_IR_VERSION)
    else:
        attributes["bits"] = bits
    output = editor.node(
        "GatherBlockQuantized",
        [_rows(editor, node, codes) if tied else codes, node.inputs[1], *params],
        name=f"{node.name}_GatherBlockQuantized",
        before=node,
        domain=_DOMAIN,
        attributes=attributes,
        dtype=params[0].dtype,
        shape=old.shape,
    )
    replace_output(old, output)
    remove([node])
    table = output.producer()
    assert table is not None
    return table


def _rows(editor: Editor, node: ir.Node, codes: ir.Value) -> ir.Value:
    """Codes in the form of MatMulNBits as rows."""
    assert codes.shape is not None
    shape = np.array([codes.shape.numpy()[0], -1])
    name = (codes.name or "").removesuffix("_codes")
    rows = editor.initializer(editor.model.graph, f"{name}_rows", shape)
    return editor.node(
        "Reshape", [codes, rows], name=f"{node.name}_rows", before=node, dtype=codes.dtype
    )


LOWERING = GatherBlockQuantized
