"""The grid of least lp error, p < 1: few large errors count less than many small ones.

Half-quadratic quantization (Badri & Shaji, "Half-Quadratic Quantization of Large Machine Learning
Models", 2023) splits the error of a block into outliers E and the rest, and alternates

    c = clip(round(x / s + z))
    E = shrink(x - s (c - z))          shrink(e) = sign(e) max(|e| - |e|^(p-1) / beta, 0)
    s, z = the regression of x - E on c

with beta growing. The paper moves z alone, which a zero point that must be an integer rarely gains
by. Errors are measured in steps of the grid, so that the scale of a weight does not matter. Kept is
the grid whose mean |error| is least.
"""

from __future__ import annotations

import numpy as np

from onnxq.kernels import grids, regression
from onnxq.kernels._compile import SEARCH, kernel

_ROUNDS = 12
_BETA, _KAPPA = np.float32(10), np.float32(1.01)
_POWER = np.float32(-0.3)  # p - 1, with p = 0.7
# (1 - (p - 1)) times about the bits of 1, such that the power below is nowhere far off.
_SHIFT = np.float32(1.3 * 0x3F7A3BEA)


@kernel()
def _sum(x, importance, s, inverse, z, lowest, highest, beta, code, y, error, sums):
    """Sums of w |error| into `error`; of w y, w c, w c c, w c y with y = x - E into `sums`.

    Short loops with few arrays each: the compiler gives up on vectors if it has to check many.
    """
    error[:] = 0
    sums[:] = 0
    bits = y.view(np.int32)
    sharpness = np.float32(1) / beta
    for r in range(x.shape[0]):
        w, row = importance[r], x[r]
        for l in range(s.size):
            c = np.rint(row[l] * inverse[l] + z[l])
            c = c if c > lowest else lowest
            code[l] = c if c < highest else highest
        for l in range(s.size):
            y[l] = abs(row[l] * inverse[l] + z[l] - code[l])
        for l in range(s.size):
            error[l] += w * y[l] * s[l]
        for l in range(s.size):
            # |e|^(p-1): the bits of a float are nearly linear in its logarithm.
            bits[l] = np.int32(_POWER * np.float32(bits[l]) + _SHIFT)
        for l in range(s.size):
            e = row[l] * inverse[l] + z[l] - code[l]
            size, small = abs(e), y[l] * sharpness
            kept = size if size < small else small
            y[l] = s[l] * (code[l] - z[l] + (kept if e > 0 else -kept))
        for l in range(s.size):
            sums[0, l] += w * y[l]
        for l in range(s.size):
            sums[1, l] += w * code[l]
        for l in range(s.size):
            sums[2, l] += w * code[l] * code[l]
        for l in range(s.size):
            sums[3, l] += w * code[l] * y[l]


@kernel(SEARCH)
def search(x, importance, scale, zero, lowest, highest, moves, rounds):
    """See the module."""
    lanes = x.shape[2]
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    s, z = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    code, y = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    error, least = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    inverse, sums = np.empty(lanes, np.float32), np.empty((4, lanes), np.float32)
    for b in range(x.shape[0]):
        grids.bounds(x[b], low, high)
        for l in range(lanes):
            s[l], z[l] = grids.covering(low[l], high[l], lowest, highest, moves, rounds)
            scale[b, l], zero[b, l] = s[l], z[l]
            least[l] = np.float32(np.inf)
        total, beta = np.float32(0), _BETA
        for r in range(x.shape[1]):
            total += importance[b, r]
        for _ in range(_ROUNDS):
            for l in range(lanes):
                inverse[l] = np.float32(1) / s[l]
            _sum(x[b], importance[b], s, inverse, z, lowest, highest, beta, code, y, error, sums)
            for l in range(lanes):
                better = error[l] < least[l]
                least[l] = error[l] if better else least[l]
                scale[b, l] = s[l] if better else scale[b, l]
                zero[b, l] = z[l] if better else zero[b, l]
                fitted, moved, _ = regression.solve(
                    total, sums[0, l], sums[1, l], sums[2, l], sums[3, l],
                    z[l], lowest, highest, moves, rounds,
                )  # fmt: skip
                usable = fitted > grids.TINY
                s[l] = fitted if usable else s[l]
                z[l] = moved if usable else z[l]
            beta *= _KAPPA
