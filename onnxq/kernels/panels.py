"""A panel: a part of a weight in float32, with elements that share a scale along the rows.

Reading one decodes float16 and bfloat16 and transposes as needed, so that all other kernels see
contiguous lanes. All three float types are sign and magnitude: shifted left, the magnitude of a
bfloat16 is that of a float32, and that of a float16 is 2^-112 times it, denormals included.
"""

from __future__ import annotations

import numpy as np
from numba import types

from onnxq.kernels._compile import F32, I64, array, kernel

_U8, _U16, _U32 = types.uint8, types.uint16, types.uint32
_X = array(F32, 2, written=True)


@kernel()
def _float(bits, size, up, sign_up):
    sign = np.uint32(bits) ^ size
    return np.uint32(np.uint32(size << up) | np.uint32(sign << sign_up)).view(np.float32)


@kernel(
    *(
        _U32(array(bits, 3), I64, I64, I64, bits, I64, I64, F32, _X)
        for bits in (_U16, _U32)
    )
)  # fmt: skip
def read_rows(source, outer, row, lane, magnitude, up, sign_up, factor, panel):
    """Copy source[outer, row:, lane:] to `panel` [rows, lanes], times `factor`.

    Returns:
        The largest magnitude, in bits of the source.
    """
    top = np.uint32(0)
    for r in range(panel.shape[0]):
        line = source[outer, row + r, lane : lane + panel.shape[1]]
        for l in range(line.size):
            size = np.uint32(line[l] & magnitude)
            panel[r, l] = _float(line[l], size, up, sign_up) * factor
            top = size if size > top else top
    return top


@kernel(
    *(
        _U32(array(bits, 3), I64, I64, I64, bits, I64, I64, F32, _X)
        for bits in (_U16, _U32)
    )
)  # fmt: skip
def read_columns(source, outer, row, lane, magnitude, up, sign_up, factor, panel):
    """Copy source[outer, lane:, row:] transposed to `panel` [rows, lanes]; see `read_rows`."""
    top = np.uint32(0)
    for first in range(0, panel.shape[0], 16):
        part = panel[first : first + 16]
        for l in range(panel.shape[1]):
            line = source[outer, lane + l, row + first : row + first + part.shape[0]]
            for r in range(line.size):
                size = np.uint32(line[r] & magnitude)
                part[r, l] = _float(line[r], size, up, sign_up) * factor
                top = size if size > top else top
    return top


@kernel(types.void(array(_U8, 2), array(_U8, 3, written=True), I64, I64, I64))
def write_rows(codes, target, outer, row, lane):
    """Copy `codes` [rows, lanes] to target[outer, row:, lane:]."""
    for r in range(codes.shape[0]):
        line = target[outer, row + r, lane : lane + codes.shape[1]]
        for l in range(line.size):
            line[l] = codes[r, l]


@kernel(types.void(array(_U8, 2), array(_U8, 3, written=True), I64, I64, I64))
def write_columns(codes, target, outer, row, lane):
    """Copy `codes` [rows, lanes] to target[outer, lane:, row:], transposed."""
    for l in range(codes.shape[1]):
        line = target[outer, lane + l, row : row + codes.shape[0]]
        for r in range(line.size):
            line[r] = codes[r, l]
