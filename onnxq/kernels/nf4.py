"""NF4: the nearest of 16 levels L(c) from -1 to 1, times the scale of the block.

The scale that covers a block is its largest |x| (Dettmers et al. 2023, arXiv:2305.14314). For given
codes c the scale of least weighted squared error is that of a regression,

    x ~ s L(c)          s = SxL / SLL,   of the sum of w x^2 explained: s SxL

so it is searched as in `onnxq.kernels.least_squares`: several scales around the one that covers
give codes, the best of their regressions is repeated from its own codes.
"""

from __future__ import annotations

import numpy as np

from onnxq.formats.nf4 import FORMAT
from onnxq.kernels import grids
from onnxq.kernels._compile import ENCODE, SEARCH, kernel

LEVELS = np.array(FORMAT.levels, np.float32)
EDGES = np.array(FORMAT.edges, np.float32)
_SCALES, _LEAST, _APART, _REPEATS = 12, np.float32(0.7), np.float32(0.04), 2


@kernel()
def _level(v):
    """The level nearest to `v`, the lower one of two as near."""
    found = LEVELS[0]
    for i in range(15):
        found = LEVELS[i + 1] if v > EDGES[i] else found
    return found


@kernel()
def _peaks(x, scale):
    """The largest |x| of each column; 1 where there is none but 0."""
    for l in range(scale.size):
        scale[l] = np.float32(0)
    for r in range(x.shape[0]):
        for l in range(scale.size):
            v = abs(x[r, l])
            scale[l] = v if v > scale[l] else scale[l]
    for l in range(scale.size):
        above = scale[l] if scale[l] > grids.TINY else grids.TINY
        scale[l] = above if scale[l] > np.float32(0) else np.float32(1)


@kernel(SEARCH)
def cover(x, importance, scale, zero, lowest, highest, moves, rounds):
    """The scale that covers each block."""
    zero[:] = 0
    for b in range(x.shape[0]):
        _peaks(x[b], scale[b])


@kernel()
def _sum(x, importance, inverse, sums):
    """Sums of w x L and of w L L."""
    for l in range(inverse.size):
        sums[0, l], sums[1, l] = np.float32(0), np.float32(0)
    for r in range(x.shape[0]):
        w = importance[r]
        for l in range(inverse.size):
            v = x[r, l]
            level = _level(v * inverse[l])
            sums[0, l] += w * level * v
            sums[1, l] += w * level * level


@kernel()
def _errors(x, importance, scale, error):
    for l in range(scale.size):
        error[l] = np.float32(0)
    for r in range(x.shape[0]):
        w = importance[r]
        for l in range(scale.size):
            v = x[r, l]
            d = _level(v * (np.float32(1) / scale[l])) * scale[l] - v
            error[l] += w * d * d


@kernel(SEARCH)
def search(x, importance, scale, zero, lowest, highest, moves, rounds):
    """The scale of least squared error of each block."""
    zero[:] = 0
    lanes = x.shape[2]
    first, inverse = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    gain, sums = np.empty(lanes, np.float32), np.empty((2, lanes), np.float32)
    for b in range(x.shape[0]):
        best = scale[b]
        _peaks(x[b], first)
        for l in range(lanes):
            best[l], gain[l] = first[l], np.float32(0)
        for step in range(_SCALES + _REPEATS):
            for l in range(lanes):
                wider = first[l] * (_LEAST + np.float32(step) * _APART)
                inverse[l] = np.float32(1) / (wider if step < _SCALES else best[l])
            _sum(x[b], importance[b], inverse, sums)
            for l in range(lanes):
                s = sums[0, l] / (sums[1, l] if sums[1, l] > np.float32(0) else np.float32(1))
                better = s * sums[0, l] > gain[l] and s > grids.TINY
                gain[l] = s * sums[0, l] if better else gain[l]
                best[l] = s if better else best[l]
        _errors(x[b], importance[b], best, sums[0])
        _errors(x[b], importance[b], first, sums[1])
        for l in range(lanes):
            best[l] = best[l] if sums[0, l] < sums[1, l] else first[l]


@kernel(ENCODE)
def encode(x, scale, zero, lowest, highest, rounds, origin, codes):
    """The codes of the nearest levels."""
    inverse = np.empty(x.shape[2], np.float32)
    for b in range(x.shape[0]):
        for l in range(x.shape[2]):
            inverse[l] = np.float32(1) / scale[b, l]
        for r in range(x.shape[1]):
            for l in range(x.shape[2]):
                v, code = x[b, r, l] * inverse[l], np.uint8(0)
                for i in range(15):
                    code = np.uint8(i + 1) if v > EDGES[i] else code
                codes[b, r, l] = code
