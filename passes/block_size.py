"""How many weights share a scale.

A block of b weights takes b codes, a scale and perhaps a zero point; a column of K weights takes
ceil(K / b) of them, the last one padded. "auto" is the size that takes the fewest bytes, the
smaller of two that take the same: at K = 576, blocks of 64 take less than blocks of 128, of which
the last is half empty, and are more accurate.
"""

from __future__ import annotations

from typing import Literal

from onnxq import formats
from onnxq.targets import No, WeightOnlySupport
from onnxq.types import QuantSpec

# Those that every runtime has its fastest kernels for; larger ones save little and cost accuracy.
AUTOMATIC = (32, 64, 128)


def block_size(
    asked: int | Literal["auto"] | None, rows: int, spec: QuantSpec, support: WeightOnlySupport
) -> int | No:
    """The block size for columns of `rows` weights.

    Args:
        asked: A size, "auto", or None for one block per column.
        rows: The length of a column.
        spec: What codes, scales and zero points are stored as.
        support: What the target runs.
    """
    if asked is None:
        return _whole_column(rows, spec, support)
    if isinstance(asked, int):
        return asked if (refused := _refusal(asked, rows, support)) is None else refused
    found = [_refusal(size, rows, support) for size in _sizes(support)]
    fitting = [s for s, refused in zip(_sizes(support), found, strict=True) if refused is None]
    if not fitting:
        return next(refused for refused in found if refused is not None)
    return min(fitting, key=lambda size: (column_bits(size, rows, spec), size))


def column_bits(size: int, rows: int, spec: QuantSpec) -> int:
    """How many bits a column of `rows` weights takes in blocks of `size`."""
    bits = formats.get(spec.format).bits
    scale = 32 if spec.scale_dtype == "float32" else 16
    zero_point = scale if spec.float_zero_point else 0 if spec.symmetric else bits
    return -(-rows // size) * (size * bits + scale + zero_point)


def _sizes(support: WeightOnlySupport) -> list[int]:
    return [size for size in support.block_sizes if size in AUTOMATIC]


def _refusal(size: int, rows: int, support: WeightOnlySupport) -> No | None:
    if not support.ragged_blocks and rows % size:
        return No(
            f"its {rows} rows are no multiple of the block size {size}, which the target needs"
        )
    if not support.single_blocks and rows <= size:
        return No(
            f"its {rows} rows are one block of {size}, which the target dequantizes in float; a "
            "smaller block size would do"
        )
    return None


def _whole_column(rows: int, spec: QuantSpec, support: WeightOnlySupport) -> int | No:
    bits = formats.get(spec.format).bits
    if bits not in support.whole_columns:
        return No(f"the target takes no block as long as a column with {bits}-bit weights")
    if rows < 16 or rows & (rows - 1):
        return No(f"its {rows} rows are no power of two, as the target's blocks are")
    return rows
