"""Codes on a grid, and the grid that covers a range: what every search starts and ends with.

code = clip(round(x / scale) + zero)            (with an integer zero point)
code = clip(round(x / scale + zero))            (with a float zero point)
"""

from __future__ import annotations

import numpy as np

from onnxq.kernels._compile import ENCODE, F32, SEARCH, array, kernel

TINY = np.float32(np.finfo(np.float32).tiny)
_READ = array(F32, 2)


@kernel()
def covering(low, high, lowest, highest, moves, rounds):
    """Scale and zero point that cover [low, high], which contains 0."""
    one, steps = np.float32(1), highest - lowest
    zero = np.float32(0)
    if moves:
        scale = high / steps - low / steps
    else:
        upper, lower = high / highest, (low / lowest if lowest < 0 else np.float32(0))
        scale = upper if upper > lower else lower
    above = scale if scale > TINY else TINY
    scale = above if scale != 0 else one
    if moves:
        zero = lowest - low / scale
        if rounds:
            zero = np.rint(zero)
            zero = zero if zero > lowest else lowest
            zero = zero if zero < highest else highest
    return scale, zero


@kernel()
def bounds(x, low, high):
    """The least and the greatest of each column of `x` [size, lanes], widened to contain 0."""
    for l in range(low.size):
        low[l] = np.float32(0)
        high[l] = np.float32(0)
    widen(x, low, high)


@kernel()
def widen(x, low, high):
    """Widen [low, high] to contain each column of `x` [rows, lanes].

    Four rows at a time, here as in other kernels: to read and write `low` and `high` less often.
    """
    whole = x.shape[0] - x.shape[0] % 4
    for r in range(0, whole, 4):
        for l in range(low.size):
            least, most = low[l], high[l]
            for i in range(4):
                v = x[r + i, l]
                least = v if v < least else least
                most = v if v > most else most
            low[l], high[l] = least, most
    for r in range(whole, x.shape[0]):
        for l in range(low.size):
            v = x[r, l]
            low[l] = v if v < low[l] else low[l]
            high[l] = v if v > high[l] else high[l]


@kernel(SEARCH)
def cover(x, importance, scale, zero, lowest, highest, moves, rounds):
    """The grid that covers the range of each block: rounding to nearest."""
    lanes = x.shape[2]
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    for b in range(x.shape[0]):
        bounds(x[b], low, high)
        for l in range(lanes):
            scale[b, l], zero[b, l] = covering(low[l], high[l], lowest, highest, moves, rounds)


@kernel(ENCODE)
def encode(x, scale, zero, lowest, highest, rounds, origin, codes):
    """The nearest codes, with `origin` added, in two's complement."""
    for b in range(x.shape[0]):
        for r in range(x.shape[1]):
            for l in range(x.shape[2]):
                t = x[b, r, l] / scale[b, l]
                z = zero[b, l]
                q = np.rint(t) + z if rounds else np.rint(t + z)
                q = q if q > lowest else lowest
                q = q if q < highest else highest
                codes[b, r, l] = np.uint8(np.int32(q) + np.int32(origin))
