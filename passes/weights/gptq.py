"""GPTQ: codes of least error of the output, sum over the data of |(W - Q)^T x|^2.

With H the second moment of the inputs x, that is tr((W - Q)^T H (W - Q)). Rows are quantized one
after another, and those to come make up for the error of those that are done: see
`onnxq.kernels.compensate` (Frantar et al. 2022, arXiv:2210.17323). What differs:

    order    Blocks go by the mean of the diagonal of H, largest first, and so do the rows inside
             each: those that matter most are quantized while most others can still make up for
             them, and a block stays a block. Its grid is that of what its rows have become.
    grid     Of least squared error, where row r counts 1 / U_rr^2: what is left of its error after
             the rows to come have made up for it. Or that of another algorithm, "gptq+hqq": on
             SmolLM2 (symmetric, blocks of 32, rotated) the KL divergence from float is 0.099 with
             the first, 0.107 with that of hqq, 0.114 with kquant's and 0.131 with rtn's.
    damping  A share of the mean of the diagonal is added to it, ten times as much until H is
             positive definite. An input that is always 0 has the weight of the damping.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxq.passes.weights import DataAware, _blocks, mse
from onnxq.passes.weights._blocks import Search
from onnxq.passes.weights._with_moment import as_rows, quantized
from onnxq.types import Array, PerBlock, QTensor, QuantSpec

_DAMPING = 0.01
_BATCH = 128  # rows whose errors reach the rows to come in one product of matrices
_WHOLE = 64  # rows of a triangular matrix that is inverted at once


def quantize(weight: Array, spec: QuantSpec, second_moment: Array) -> QTensor:
    """Quantize a matrix.

    Args:
        weight: Of any float type, two axes.
        spec: A format of integers, in blocks along the axis that is summed over.
        second_moment: H, the mean or sum of x x^T, [K, K] for K along that axis.

    Raises:
        NotFiniteError: `weight` or `second_moment` holds NaN or infinity.
        RecipeError: It is not a matrix in blocks of integers.
    """
    return on_grids(weight, spec, second_moment, mse.search())


def on_grids(weight: Array, spec: QuantSpec, second_moment: Array, search: Search) -> QTensor:
    """As `quantize`, on the grids that `search` finds."""
    rows = as_rows("gptq", weight, spec, second_moment)
    moment = np.asarray(second_moment, np.float64)
    return quantized(*_propagate(rows, spec, moment, search), spec)


def _propagate(
    rows: Array, spec: QuantSpec, moment: Array, search: Search
) -> tuple[Array, Array, Array]:
    """Codes [K, N], and scales and zero points [blocks, N], counted from the origin."""
    from onnxq.kernels import compensate, threads  # noqa: PLC0415

    assert isinstance(spec.granularity, PerBlock)
    length, lanes = rows.shape
    size = min(spec.granularity.size, length)
    blocks = _ordered(np.diag(moment), size)
    order = np.concatenate(blocks)
    factor = _factor(moment[np.ix_(order, order)])
    left_over = 1 / np.diag(factor) ** 2
    importance = (left_over / left_over.max()).astype(np.float32)
    upper = factor.astype(np.float32)
    left = np.ascontiguousarray(rows[order])
    codes = np.empty((length, lanes), np.uint8)
    scale, zero = (np.empty((len(blocks), lanes), np.float32) for _ in range(2))
    lowest, highest, origin = _blocks.code_range(spec)
    for batch, starts in _batches(blocks):
        first, last = starts[0], starts[-1]
        here = slice(first, last)
        found = np.empty((last - first, lanes), np.uint8)
        error = np.empty(found.shape, np.float32)
        s, z = (np.empty((len(batch), lanes), np.float32) for _ in range(2))
        part = np.ascontiguousarray(upper[here, here])

        def work(start: int, end: int) -> None:
            compensate.quantize(
                search, start, end,
                left[here], part, starts - first, importance[here],  # noqa: B023
                np.float32(lowest), np.float32(highest),
                not spec.symmetric, not spec.float_zero_point, origin,
                _blocks.DROPPED_BITS[spec.scale_dtype],
                found, s, z, error,  # noqa: B023
            )  # fmt: skip

        threads.shared(work, lanes)
        left[last:] -= upper[here, last:].T @ error
        codes[order[here]] = found
        places = [block.min() // size for block in batch]
        scale[places], zero[places] = s, z
    return codes, scale, zero


def _ordered(diagonal: Array, size: int) -> list[Array]:
    """The rows of each block, those of the largest diagonal first, of blocks in that order too."""
    blocks = np.split(np.arange(len(diagonal)), range(size, len(diagonal), size))
    blocks.sort(key=lambda block: -float(diagonal[block].mean()))
    return [block[np.argsort(-diagonal[block], kind="stable")] for block in blocks]


def _batches(blocks: list[Array]) -> Iterator[tuple[list[Array], Array]]:
    """Runs of whole blocks, with the first row of each and the end, in the order of `blocks`."""
    count = max(1, _BATCH // max(map(len, blocks)))
    edges = np.cumsum([0, *map(len, blocks)])
    for i in range(0, len(blocks), count):
        yield blocks[i : i + count], edges[i : i + count + 1]


def _factor(moment: Array) -> Array:
    """U, upper triangular, so that U^T U is the inverse of the damped second moment."""
    diagonal = np.diag(moment)
    level = float(np.abs(diagonal).mean()) or 1.0
    share = _DAMPING
    while True:
        damped = moment + np.diag(np.full(len(diagonal), share * level))
        try:
            # Backwards, for an upper triangular root R of H = R R^T; then U = R^-1.
            root = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        except np.linalg.LinAlgError:
            share *= 10
        else:
            return _inverse(root)


def _inverse(root: Array) -> Array:
    """Of an upper triangular matrix, from those of its halves on the diagonal, A and C.

    [[P, B], [0, R]] with inverses A of P and C of R has the inverse [[A, -A B C], [0, C]].
    """
    size = len(root)
    if size <= _WHOLE:
        return np.triu(np.linalg.inv(root))
    half = size // 2
    found = np.zeros_like(root)
    found[:half, :half] = first = _inverse(root[:half, :half])
    found[half:, half:] = last = _inverse(root[half:, half:])
    found[:half, half:] = -(first @ root[:half, half:]) @ last
    return found


ALGORITHM = DataAware(quantize, on_grids)
