"""Round to nearest, with the scale whose mean squared error is least.

Tried are the scale that covers the range, and multiples of it from 0.75 to 1.05: a smaller one
clips the largest elements of a block and rounds the others more finely. The zero point stays.
"""

from __future__ import annotations

import numpy as np

from onnxq.passes.weights import rtn
from onnxq.types import Array, QTensor, QuantSpec

_FACTORS = np.linspace(0.75, 1.05, 16, dtype=np.float32)


def quantize(weight: Array, spec: QuantSpec) -> QTensor:
    """See `onnxq.passes.weights.rtn.quantize`; sixteen times its work."""
    return rtn.quantize(weight, spec, _least_error)


def _least_error(grouped: Array, scale: Array, zero: Array, spec: QuantSpec) -> Array:
    best, least = scale, _error(grouped, scale, zero, spec)
    for factor in _FACTORS:
        tried = np.maximum(scale * factor, np.finfo(np.float32).tiny)
        error = _error(grouped, tried, zero, spec)
        best = np.where(error < least, tried, best)
        least = np.minimum(error, least)
    return best


def _error(grouped: Array, scale: Array, zero: Array, spec: QuantSpec) -> Array:
    codes = rtn.encode(grouped, scale, zero, spec).astype(np.float32)
    return np.asarray((((codes - zero) * scale - grouped) ** 2).sum(axis=1, keepdims=True))


ALGORITHM = quantize
