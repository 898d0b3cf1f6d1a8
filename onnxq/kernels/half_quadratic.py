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

_ROUNDS = 20
_BETA, _KAPPA = np.float32(10), np.float32(1.01)
_POWER = np.float32(-0.3)  # p - 1, with p = 0.7
_ONE = 0x3F7A3BEA  # about the bits of 1, such that the power below is nowhere far off


@kernel()
def _sum(x, importance, s, z, lowest, highest, beta, size, error, sums):
    """Sums of w |error|, and of w, w y, w c, w c c, w c y with y = x - E."""
    sums[:] = 0
    bits = size.view(np.int32)
    for r in range(x.shape[0]):
        w = importance[r]
        for l in range(s.size):
            t = x[r, l] / s[l] + z[l]
            c = np.rint(t)
            c = c if c > lowest else lowest
            c = c if c < highest else highest
            error[l] = t - c
            size[l] = abs(t - c)
            sums[0, l] += w * size[l] * s[l]
        for l in range(s.size):
            # size^(p-1): the bits of a float are nearly linear in its logarithm.
            bits[l] = np.int32(_POWER * np.float32(bits[l] - _ONE)) + _ONE
        for l in range(s.size):
            e = error[l]
            kept = min(abs(e), size[l] / beta)
            y = s[l] * (kept if e > 0 else -kept)
            c = np.rint(x[r, l] / s[l] + z[l] - e)
            y += s[l] * (c - z[l])
            wc = w * c
            sums[1, l] += w
            sums[2, l] += w * y
            sums[3, l] += wc
            sums[4, l] += wc * c
            sums[5, l] += wc * y


@kernel(SEARCH)
def search(x, importance, scale, zero, lowest, highest, moves, rounds):
    """See the module."""
    lanes = x.shape[2]
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    s, z = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    size, error = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    sums, least = np.empty((6, lanes), np.float32), np.empty(lanes, np.float32)
    for b in range(x.shape[0]):
        grids.bounds(x[b], low, high)
        for l in range(lanes):
            s[l], z[l] = grids.covering(low[l], high[l], lowest, highest, moves, rounds)
            scale[b, l], zero[b, l] = s[l], z[l]
            least[l] = np.float32(np.inf)
        beta = _BETA
        for _ in range(_ROUNDS):
            _sum(x[b], importance[b], s, z, lowest, highest, beta, size, error, sums)
            for l in range(lanes):
                better = sums[0, l] < least[l]
                least[l] = sums[0, l] if better else least[l]
                scale[b, l] = s[l] if better else scale[b, l]
                zero[b, l] = z[l] if better else zero[b, l]
                fitted, moved, _ = regression.solve(
                    sums[1:, l], z[l], lowest, highest, moves, rounds
                )
                usable = fitted > grids.TINY
                s[l] = fitted if usable else s[l]
                z[l] = moved if usable else z[l]
            beta *= _KAPPA
