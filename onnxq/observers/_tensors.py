"""One tensor as the kernels take it: in the order of memory, without a copy where there is one."""

from __future__ import annotations

import math

import numpy as np

from onnxq.types import Array

_LARGEST_FACTOR = 2.0**127  # that a float32 holds
_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}


def laid_out(array: Array) -> Array:
    """`array` [channels, ...] as contiguous [outer, channels, inner], which has the same values."""
    channels = array.shape[0]
    for axis in range(array.ndim):
        moved = array.transpose(*range(1, axis + 1), 0, *range(axis + 1, array.ndim))
        if moved.flags.c_contiguous:
            return moved.reshape(math.prod(moved.shape[:axis]), channels, -1)
    return np.ascontiguousarray(array).reshape(1, channels, -1)


def bounds(tensor: Array) -> tuple[Array, Array]:
    """The least and the greatest value of each channel of `tensor` [outer, channels, inner]."""
    from onnxq.kernels import histogram  # noqa: PLC0415

    bits = tensor.view(_INTEGERS[tensor.itemsize])
    limits = np.iinfo(bits.dtype)
    low = np.full(tensor.shape[1], limits.max, bits.dtype)
    high = np.full(tensor.shape[1], limits.min, bits.dtype)
    sign, magnitude = bits.dtype.type(8 * tensor.itemsize - 1), bits.dtype.type(limits.max)
    histogram.bound(bits, sign, magnitude, low, high)
    # -0.0 and 0.0 compare equal; adding 0.0 makes them one.
    found = [
        (k ^ ((k >> sign) & magnitude)).view(tensor.dtype).astype(np.float64) + 0.0
        for k in (low, high)
    ]
    return found[0], found[1]


def counts(tensor: Array, factor: float, middle: int) -> Array:
    """How often floor(value * factor) is each of -middle to middle - 1: int64 [2 * middle]."""
    from onnxq.kernels import histogram  # noqa: PLC0415

    found = np.zeros(2 * middle, np.int64)
    # A power of two from 1 on scales any float32 exactly; smaller ones lose the smallest values.
    narrow = tensor.dtype != np.float64 and 1 <= factor <= _LARGEST_FACTOR
    dtype = np.float32 if narrow else np.float64
    values = tensor.astype(dtype, copy=False)
    histogram.count(values.reshape(-1), dtype(factor), middle, found)
    return found
