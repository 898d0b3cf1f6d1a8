"""What the weight of an op may become: one spec, or those that a budget chooses from.

With bits "auto", each width of codes that the target runs; and with block_size "auto" then, each
size of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from onnxq.passes.block_size import AUTOMATIC, block_size, column_bits
from onnxq.recipe import Weights
from onnxq.targets import No, WeightOnlySupport
from onnxq.types import PerBlock, QuantSpec, ScaleType

BITS = 4  # of codes, if a recipe does not say
CODEBOOK = "nf4"


def choices(
    weights: Weights, rows: int, axis: int, scale_dtype: ScaleType, support: WeightOnlySupport
) -> list[QuantSpec] | No:
    """The specs for a weight, that of the fewest bytes first.

    Args:
        weights: What the recipe says of it.
        rows: The length of its columns.
        axis: Along which they lie.
        scale_dtype: What scales are stored in.
        support: What the target runs.

    Returns:
        At least one, or why there is none.
    """
    if weights.bits == CODEBOOK:  # whose blocks follow each other across the columns
        support = replace(support, ragged_blocks=False, whole_columns=())
    found: list[QuantSpec] = []
    refused = No("the target runs no width of codes with such zero points")
    for spec, asked in _asked(weights, scale_dtype, support):
        size = block_size(asked, rows, spec, support)
        if isinstance(size, No):
            refused = size
        else:
            found.append(replace(spec, granularity=PerBlock(axis, size)))
    return sorted(found, key=lambda spec: _stored_bits(spec, rows)) if found else refused


def stored_bytes(spec: QuantSpec, rows: int, columns: int) -> int:
    """What a weight of `columns` columns of `rows` takes, within a byte a column."""
    return -(-_stored_bits(spec, rows) * columns // 8)


def _stored_bits(spec: QuantSpec, rows: int) -> int:
    assert isinstance(spec.granularity, PerBlock)
    return column_bits(spec.granularity.size, rows, spec)


def _asked(
    weights: Weights, scale_dtype: ScaleType, support: WeightOnlySupport
) -> Iterator[tuple[QuantSpec, int | Literal["auto"] | None]]:
    """Specs without a granularity, each with a block size to ask for."""
    if weights.bits == CODEBOOK:
        yield QuantSpec(CODEBOOK, scale_dtype=scale_dtype), weights.block_size
        return
    symmetric = weights.symmetric
    if symmetric is None:
        symmetric = not (support.zero_points or weights.float_zero_points)
    is_open = weights.bits == "auto"
    widths = support.bits if is_open else (weights.bits or BITS,)
    sizes: Sequence[int | Literal["auto"] | None] = [weights.block_size]
    if is_open and weights.block_size == "auto":
        sizes = [size for size in support.block_sizes if size in AUTOMATIC]
    for bits in widths:
        if is_open and weights.float_zero_points and bits not in support.float_zero_points:
            continue
        spec = QuantSpec(
            f"int{bits}" if symmetric else f"uint{bits}",
            symmetric=symmetric,
            float_zero_point=weights.float_zero_points,
            scale_dtype=scale_dtype,
        )
        for size in sizes:
            yield spec, size
