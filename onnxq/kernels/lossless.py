"""Weights that were codes before: found again, and kept as they are.

A block that was made of 4-bit codes (a GGUF's Q4_0 or Q4_1, say) holds at most 16 values, evenly
spaced. Its step is (high - low) / k for some k below 16, and then every x is low + n step up
to float rounding. If the zero point must be an integer (or there is none), low / step must be one.
Other blocks take a grid of least squares.
"""

from __future__ import annotations

import numpy as np

from onnxq.kernels import grids, least_squares
from onnxq.kernels._compile import SEARCH, kernel

_ROUNDING = np.float32(2.0**-18)  # of the largest |x|: some roundings to float32, of larger terms
_MOST_STEPS = 16  # 4-bit codes; others would be found by accident or take too long
_HOPELESS_AFTER = 8  # of the numbers of steps, if none of the neighbouring blocks fitted
_PROBED = 3  # rows, which show nearly always that a number of steps does not fit
_NEARLY = np.float32(2)  # times what is allowed: more than the roundings of a faster probe


@kernel()
def _low_and_high(x, low, high):
    for l in range(low.size):
        low[l] = x[0, l]
        high[l] = x[0, l]
    grids.widen(x, low, high)


@kernel()
def _farthest(x, low, step, far):
    """How far any element is from its place on the grid."""
    for l in range(far.size):
        far[l] = np.float32(0)
    for r in range(x.shape[0]):
        for l in range(far.size):
            v = x[r, l] - low[l]
            off = abs(np.rint(v / step[l]) * step[l] - v)
            far[l] = off if off > far[l] else far[l]


@kernel()
def _may_fit(x, low, high, per_span, steps, allowed, found):
    """Whether the first rows of any lane not found yet lie on a grid of so many steps, nearly."""
    share, count = np.float32(1) / steps, 0
    for l in range(low.size):
        span = high[l] - low[l]
        step, inverse = span * share, per_span[l] * steps
        far = np.float32(0)
        for r in range(_PROBED):
            v = x[r, l] - low[l]
            off = abs(np.rint(v * inverse) * step - v)
            far = off if off > far else far
        count += (far <= _NEARLY * allowed[l]) & (span > np.float32(0)) & (not found[l])
    return count > 0


@kernel()
def _place(low, steps, step, allowed, lowest, highest, moves, rounds):
    """The zero point that makes the codes fit, and whether there is one."""
    exact = (lowest if moves else np.float32(0)) - low / step
    if not moves:
        nearest = np.rint(low / step)
        fits = abs(nearest * step - low) <= allowed
        return np.float32(0), fits and nearest >= lowest and nearest + steps <= highest
    if not rounds:
        return exact, True
    zero = np.rint(exact)
    zero = zero if zero > lowest else lowest
    zero = zero if zero < highest else highest
    first = np.rint(low / step) + zero
    fits = abs((first - zero) * step - low) <= allowed
    return zero, fits and first >= lowest and first + steps <= highest


@kernel()
def recover(x, scale, zero, lowest, highest, moves, rounds):
    """Set `scale` and `zero` of the lanes of block `x` that lie on a grid; leave the others."""
    lanes = scale.size
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    step, far = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    allowed, per_span = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    found = np.zeros(lanes, np.bool_)
    _low_and_high(x, low, high)
    for l in range(lanes):
        allowed[l] = _ROUNDING * max(abs(low[l]), abs(high[l]))
        per_span[l] = np.float32(1) / max(high[l] - low[l], grids.TINY)
    can_probe = x.shape[0] >= _PROBED
    most = int(highest - lowest)
    any_found = False
    for k in range(most, 0, -1):
        if most - k == _HOPELESS_AFTER and not any_found:
            return
        steps = np.float32(k)
        if can_probe and not _may_fit(x, low, high, per_span, steps, allowed, found):
            continue
        for l in range(lanes):
            step[l] = (high[l] - low[l]) / steps
            step[l] = step[l] if step[l] > grids.TINY else np.float32(1)
        _farthest(x, low, step, far)
        for l in range(lanes):
            z, fits = _place(low[l], steps, step[l], allowed[l], lowest, highest, moves, rounds)
            if fits and far[l] <= allowed[l] and not found[l] and high[l] > low[l]:
                scale[l], zero[l] = step[l], z
                found[l] = True
                any_found = True


@kernel(SEARCH)
def search(x, importance, scale, zero, lowest, highest, moves, rounds):
    """See the module."""
    effort = least_squares.effort(x.shape[1], highest - lowest, moves, rounds)
    if moves:
        least_squares.fit_by_magnitude(
            x, importance, scale, zero, lowest, highest, moves, rounds, effort
        )
    else:
        least_squares.fit_plain(x, importance, scale, zero, lowest, highest, moves, rounds, effort)
    if highest - lowest < _MOST_STEPS:
        for b in range(x.shape[0]):
            recover(x[b], scale[b], zero[b], lowest, highest, moves, rounds)
