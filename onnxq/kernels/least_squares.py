"""The grid of least weighted squared error.

Each of several scales around that of the range gives codes; for those codes, the best grid is a
regression, which tells its error too; the best is repeated from its own codes. (llama.cpp's
make_qkx2_quants and make_qx_quants, with the error of the zero point as it is stored.)
"""

from __future__ import annotations

import numpy as np

from onnxq.kernels import grids, regression
from onnxq.kernels._compile import SEARCH, kernel

# How many scales, the least and the step of them (of the range's), and repeats from the best.
THOROUGH = 12, np.float32(0.70), np.float32(0.035), 4
_QUICK = 4, np.float32(0.83), np.float32(0.07), 1


@kernel()
def effort(size, steps, moves, rounds):
    """What is enough for blocks of `size` whose codes span `steps`.

    On weights of MiniLM and SmolLM2, the error with a third of the effort is 0.1 % less to 1 % more
    in blocks of 32 to 128 with 4 bits and integer zero points, or none; up to 40 % more elsewhere.
    """
    quick = steps == 15 and 32 <= size <= 128 and (rounds or not moves)
    return _QUICK if quick else THOROUGH


@kernel()
def _code(v, inverse, zero, lowest, highest):
    c = np.rint(v * inverse + zero)
    c = c if c > lowest else lowest
    return c if c < highest else highest


@kernel()
def _sum_codes(x, weights, inverse, zero, lowest, highest, sums):
    """Sums of w c, w c c and w c x; four rows at a time, to read and write the sums less often."""
    for i in range(3):
        for l in range(inverse.size):
            sums[i, l] = np.float32(0)
    whole = x.shape[0] - x.shape[0] % 4
    for r in range(0, whole, 4):
        for l in range(inverse.size):
            t, z = inverse[l], zero[l]
            v0, v1, v2, v3 = x[r, l], x[r + 1, l], x[r + 2, l], x[r + 3, l]
            c0, c1 = _code(v0, t, z, lowest, highest), _code(v1, t, z, lowest, highest)
            c2, c3 = _code(v2, t, z, lowest, highest), _code(v3, t, z, lowest, highest)
            w0, w1 = weights[r, l] * c0, weights[r + 1, l] * c1
            w2, w3 = weights[r + 2, l] * c2, weights[r + 3, l] * c3
            sums[0, l] += (w0 + w1) + (w2 + w3)
            sums[1, l] += (w0 * c0 + w1 * c1) + (w2 * c2 + w3 * c3)
            sums[2, l] += (w0 * v0 + w1 * v1) + (w2 * v2 + w3 * v3)
    for r in range(whole, x.shape[0]):
        for l in range(inverse.size):
            c = _code(x[r, l], inverse[l], zero[l], lowest, highest)
            wc = weights[r, l] * c
            sums[0, l] += wc
            sums[1, l] += wc * c
            sums[2, l] += wc * x[r, l]


@kernel()
def _squared_error(v, weight, scale, inverse, zero, lowest, highest):
    d = (_code(v, inverse, zero, lowest, highest) - zero) * scale - v
    return weight * d * d


@kernel()
def _sum_errors(x, weights, scale, zero, lowest, highest, error):
    """Sums of w times the squared error; four rows at a time, as above."""
    inverse = np.float32(1) / scale
    error[:] = 0
    whole = x.shape[0] - x.shape[0] % 4
    for r in range(0, whole, 4):
        for l in range(error.size):
            s, t, z, total = scale[l], inverse[l], zero[l], error[l]
            for i in range(4):
                total += _squared_error(x[r + i, l], weights[r + i, l], s, t, z, lowest, highest)
            error[l] = total
    for r in range(whole, x.shape[0]):
        for l in range(error.size):
            error[l] += _squared_error(
                x[r, l], weights[r, l], scale[l], inverse[l], zero[l], lowest, highest
            )


@kernel()
def _keep_better(x, weights, scale, zero, other_scale, other_zero, lowest, highest):
    """Take the other grid where its true error is no greater: sums lose digits to cancellation."""
    found, other = np.empty(scale.size, np.float32), np.empty(scale.size, np.float32)
    _sum_errors(x, weights, scale, zero, lowest, highest, found)
    _sum_errors(x, weights, other_scale, other_zero, lowest, highest, other)
    for l in range(scale.size):
        keep = found[l] < other[l]
        scale[l] = scale[l] if keep else other_scale[l]
        zero[l] = zero[l] if keep else other_zero[l]


@kernel()
def fit(x, weights, scale, zero, lowest, highest, moves, rounds, effort):
    """Find `scale` and `zero` [lanes] of one block `x` [size, lanes]."""
    size, lanes = x.shape
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    first_scale, first_zero = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    grids.bounds(x, low, high)
    for l in range(lanes):
        first_scale[l], first_zero[l] = grids.covering(
            low[l], high[l], lowest, highest, moves, rounds
        )
        scale[l], zero[l] = first_scale[l], first_zero[l]
    sums = np.empty((5, lanes), np.float32)  # of w, w x, w c, w c c, w c x
    sums[:2] = 0
    whole = size - size % 4
    for r in range(0, whole, 4):
        for l in range(lanes):
            w, wx = sums[0, l], sums[1, l]
            for i in range(4):
                w += weights[r + i, l]
                wx += weights[r + i, l] * x[r + i, l]
            sums[0, l], sums[1, l] = w, wx
    for r in range(whole, size):
        for l in range(lanes):
            sums[0, l] += weights[r, l]
            sums[1, l] += weights[r, l] * x[r, l]
    gain = np.zeros(lanes, np.float32)
    inverse = np.empty(lanes, np.float32)
    tried = np.empty(lanes, np.float32)
    scales, least, apart, repeats = effort
    for step in range(scales + repeats):
        for l in range(lanes):
            wider = first_scale[l] * (least + np.float32(step) * apart)
            inverse[l] = np.float32(1) / (wider if step < scales else scale[l])
            tried[l] = first_zero[l] if step < scales else zero[l]
        _sum_codes(x, weights, inverse, tried, lowest, highest, sums[2:])
        for l in range(lanes):
            s, z, g = regression.solve(
                sums[0, l], sums[1, l], sums[2, l], sums[3, l], sums[4, l],
                tried[l], lowest, highest, moves, rounds,
            )  # fmt: skip
            better = g > gain[l] and s > grids.TINY
            gain[l] = g if better else gain[l]
            scale[l] = s if better else scale[l]
            zero[l] = z if better else zero[l]
    _keep_better(x, weights, scale, zero, first_scale, first_zero, lowest, highest)


@kernel()
def fit_plain(x, importance, scale, zero, lowest, highest, moves, rounds, effort):
    """Let an error count as much as the importance of its row."""
    weights = np.empty(x.shape[1:], np.float32)
    for b in range(x.shape[0]):
        for r in range(x.shape[1]):
            for l in range(x.shape[2]):
                weights[r, l] = importance[b, r]
        fit(x[b], weights, scale[b], zero[b], lowest, highest, moves, rounds, effort)


@kernel()
def fit_by_magnitude(x, importance, scale, zero, lowest, highest, moves, rounds, effort):
    """As `fit_plain`, and more for large elements: rms + |x| times, or x^2 without a zero point."""
    weights = np.empty(x.shape[1:], np.float32)
    rms = np.empty(x.shape[2], np.float32)
    for b in range(x.shape[0]):
        rms[:] = 0
        for r in range(x.shape[1]):
            for l in range(x.shape[2]):
                rms[l] += x[b, r, l] * x[b, r, l]
        for l in range(x.shape[2]):
            rms[l] = np.sqrt(rms[l] / np.float32(x.shape[1]))
        for r in range(x.shape[1]):
            w = importance[b, r]
            for l in range(x.shape[2]):
                v = x[b, r, l]
                weights[r, l] = w * (rms[l] + abs(v)) if moves else w * v * v
        fit(x[b], weights, scale[b], zero[b], lowest, highest, moves, rounds, effort)


@kernel(SEARCH)
def plain(x, importance, scale, zero, lowest, highest, moves, rounds):
    """See `fit_plain`."""
    fit_plain(x, importance, scale, zero, lowest, highest, moves, rounds, THOROUGH)


@kernel(SEARCH)
def by_magnitude(x, importance, scale, zero, lowest, highest, moves, rounds):
    """See `fit_by_magnitude`."""
    fit_by_magnitude(x, importance, scale, zero, lowest, highest, moves, rounds, THOROUGH)
