"""Quantize rows one after another; those to come make up for the error of those that are done.

With U upper triangular, U^T U the inverse of the second moment H of the inputs, the error of row r

    e = (w_r - q_r) / U_rr        is made up for by        w_j -= U_rj e,   j > r

(Frantar et al. 2022, arXiv:2210.17323). The grid of a block is found when its first row is reached,
from what its rows have become. Lanes are independent of each other, so the threads that share them
do not show in the result.
"""

from __future__ import annotations

import numpy as np
from numba import types

from onnxq.kernels import grids
from onnxq.kernels._compile import BOOL, F32, I64, SEARCH, array, kernel
from onnxq.kernels.blocks import round_to

_WIDTH = 64  # lanes: 128 rows of them are 32 kB
_SMALLEST_HALF = np.float32(2.0**-24)
_WRITTEN = array(F32, 2, written=True)


@kernel()
def _grid(search, x, importance, scale, zero, lowest, highest, moves, rounds, drop):
    """The grid of one block `x` [1, size, lanes] as it is stored."""
    search(x, importance, scale, zero, lowest, highest, moves, rounds)
    round_to(scale, drop)
    smallest = _SMALLEST_HALF if drop == 13 else grids.TINY
    for l in range(scale.shape[1]):
        scale[0, l] = scale[0, l] if abs(scale[0, l]) >= smallest else smallest
    if not rounds:
        round_to(zero, drop)


@kernel(
    types.void(
        types.FunctionType(SEARCH), I64, I64,
        array(F32, 2), array(F32, 2), array(I64, 1), array(F32, 1),
        F32, F32, BOOL, BOOL, I64, I64,
        array(types.uint8, 2, written=True), _WRITTEN, _WRITTEN, _WRITTEN,
    )
)  # fmt: skip
def quantize(
    search, first, last,
    weight, factor, starts, importance,
    lowest, highest, moves, rounds, origin, drop,
    codes, scale, zero, error,
):  # fmt: skip
    """Quantize the lanes from `first` to `last` of some whole blocks of rows.

    Args:
        search: Finds the grid of each block.
        first: The first lane.
        last: The one after the last.
        weight: [rows, lanes].
        factor: The part of U for these rows, [rows, rows].
        starts: The first row of each block, and the number of rows.
        importance: What a squared error of each row counts, [rows].
        lowest: The lowest code, counted from `origin`.
        highest: The highest.
        moves: Whether there is a zero point.
        rounds: Whether it is an integer.
        origin: Added to each code.
        drop: How scales and float zero points are stored; see `blocks.round_to`.
        codes: As `weight`; written.
        scale: [blocks, lanes]; written.
        zero: Likewise, counted from `origin`.
        error: e, as `weight`; written.
    """
    rows = weight.shape[0]
    for lane in range(first, last, _WIDTH):
        n = min(_WIDTH, last - lane)
        x = np.empty((rows, n), np.float32)
        s, z = np.empty((1, n), np.float32), np.empty((1, n), np.float32)
        x[:] = weight[:, lane : lane + n]
        for b in range(starts.size - 1):
            start, end = starts[b], starts[b + 1]
            block = x[start:end].reshape(1, end - start, n)
            counts = importance[start:end].reshape(1, end - start)
            _grid(search, block, counts, s, z, lowest, highest, moves, rounds, drop)
            for l in range(n):
                scale[b, lane + l], zero[b, lane + l] = s[0, l], z[0, l]
            for r in range(start, end):
                row = x[r]
                for l in range(n):
                    v = row[l] / s[0, l]
                    q = np.rint(v) + z[0, l] if rounds else np.rint(v + z[0, l])
                    q = q if q > lowest else lowest
                    q = q if q < highest else highest
                    codes[r, lane + l] = np.uint8(np.int32(q) + np.int32(origin))
                    row[l] = (row[l] - (q - z[0, l]) * s[0, l]) / factor[r, r]
                    error[r, lane + l] = row[l]
                for j in range(r + 1, rows):
                    f, other = factor[r, j], x[j]
                    for l in range(n):
                        other[l] -= f * row[l]
