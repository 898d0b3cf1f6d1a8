"""The values of a tensor [outer, channels, inner], counted in bins and bounded for each channel.

Bounds are found among the bits as integers, which compilers reduce in vector instructions. Of the
bits b of a float, k = b ^ ((b >> sign) & ~sign_bit) has the order of the values; NaN is beyond the
infinity of its sign, so that it shows in a bound.
"""

from __future__ import annotations

import numpy as np
from numba import types

from onnxq.kernels._compile import I64, array, kernel

_F32, _F64 = types.float32, types.float64
_I16, _I32 = types.int16, types.int32
_CHUNK = 1024  # values whose bins are computed ahead of counting
_COPIES = 4  # of the counts: neighbours that are equal, such as zeros, need not wait for each other


@kernel(
    *(
        types.void(array(bits, 3), bits, bits, array(bits, 1, written=True),
                   array(bits, 1, written=True))
        for bits in (_I16, _I32, I64)
    )
)  # fmt: skip
def bound(source, sign, magnitude, low, high):
    """Widen `low` and `high` [channels], in the order k, to the bits of `source`."""
    for o in range(source.shape[0]):
        if source.shape[2] == 1:
            line = source[o, :, 0]
            for c in range(low.size):
                b = line[c]
                k = b ^ ((b >> sign) & magnitude)
                low[c] = min(low[c], k)
                high[c] = max(high[c], k)
        else:
            for c in range(low.size):
                line = source[o, c]
                least, most = low[c], high[c]
                for i in range(line.size):
                    b = line[i]
                    k = b ^ ((b >> sign) & magnitude)
                    least = min(least, k)
                    most = max(most, k)
                low[c] = least
                high[c] = most


@kernel(
    *(types.void(array(each, 1), each, I64, array(I64, 1, written=True)) for each in (_F32, _F64))
)
def count(values, factor, middle, counts):
    """Add to `counts` how often floor(value * factor) is each of -middle to middle - 1.

    `factor` is a power of two by which no value underflows.
    """
    found = np.zeros((_COPIES, counts.size), np.uint32)
    bins = np.empty(_CHUNK, np.int32)
    since = 0
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        for i in range(part.size):
            bins[i] = np.int32(np.floor(part[i] * factor)) + np.int32(middle)
        whole = part.size // _COPIES * _COPIES
        for i in range(0, whole, _COPIES):
            found[0, bins[i]] += np.uint32(1)
            found[1, bins[i + 1]] += np.uint32(1)
            found[2, bins[i + 2]] += np.uint32(1)
            found[3, bins[i + 3]] += np.uint32(1)
        for i in range(whole, part.size):
            found[0, bins[i]] += np.uint32(1)
        since += part.size
        if since > 1 << 31 or start + _CHUNK >= values.size:
            for copy in range(_COPIES):
                for b in range(counts.size):
                    counts[b] += np.int64(found[copy, b])
                    found[copy, b] = np.uint32(0)
            since = 0
