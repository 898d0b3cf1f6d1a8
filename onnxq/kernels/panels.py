"""A panel: a part of a weight in float32, with elements that share a scale along the rows.

Reading one decodes float16 and bfloat16 and transposes as needed, so that all other kernels see
contiguous lanes. All three float types are sign and magnitude: shifted left, the magnitude of a
bfloat16 is that of a float32, and that of a float16 is 2^-112 times it, denormals included.
"""

from __future__ import annotations

import numpy as np
from numba import types

from onnxq.kernels._compile import I64, array, kernel

_U8, _U16, _U32 = types.uint8, types.uint16, types.uint32
_X = array(_U32, 2, written=True)


@kernel(
    *(
        _U32(array(bits, 3), I64, I64, I64, bits, I64, I64, _X)
        for bits in (_U16, _U32)
    )
)  # fmt: skip
def read_rows(source, outer, row, lane, magnitude, up, sign_up, panel):
    """Copy source[outer, row:, lane:] to `panel` [rows, lanes] as float32 bits.

    Returns:
        The largest magnitude, in bits of the source.
    """
    top = np.uint32(0)
    for r in range(panel.shape[0]):
        line = source[outer, row + r, lane : lane + panel.shape[1]]
        for l in range(line.size):
            bits = line[l]
            size = np.uint32(bits & magnitude)
            sign = np.uint32(bits) ^ size
            panel[r, l] = np.uint32(size << up) | np.uint32(sign << sign_up)
            top = size if size > top else top
    return top


@kernel(
    *(
        _U32(array(bits, 3), I64, I64, I64, bits, I64, I64, _X)
        for bits in (_U16, _U32)
    )
)  # fmt: skip
def read_columns(source, outer, row, lane, magnitude, up, sign_up, panel):
    """Copy source[outer, lane:, row:] transposed to `panel` [rows, lanes]; see `read_rows`."""
    top = np.uint32(0)
    for first in range(0, panel.shape[0], 16):
        part = panel[first : first + 16]
        for l in range(panel.shape[1]):
            line = source[outer, lane + l, row + first : row + first + part.shape[0]]
            for r in range(line.size):
                bits = line[r]
                size = np.uint32(bits & magnitude)
                sign = np.uint32(bits) ^ size
                part[r, l] = np.uint32(size << up) | np.uint32(sign << sign_up)
                top = size if size > top else top
    return top


@kernel(types.void(array(types.float32, 3, written=True), types.float32))
def multiply(panel, factor):
    """Multiply every element of `panel` by `factor`."""
    flat = panel.reshape(-1)
    for i in range(flat.size):
        flat[i] *= factor


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
