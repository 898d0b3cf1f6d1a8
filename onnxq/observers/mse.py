"""The range whose rounding and clipping errors have the least mean square.

Of the ranges that are 8/64 to 64/64 of the largest absolute value, with values taken at the middle
of their bins: down to there every bin is finer than the step of an 8-bit code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxq import formats
from onnxq.observers._histogram import SIDE, Histogram
from onnxq.observers._range import range_params
from onnxq.types import Array, QuantSpec

_CANDIDATES, _SMALLEST = 64, 8


@dataclass(frozen=True)
class Mse(Histogram):
    """Clips where the mean squared error is least."""

    name: ClassVar[str] = "mse"

    def choose(self, counts: Array, width: float, largest: float, spec: QuantSpec) -> float:
        """See `Histogram.choose`."""
        used = np.flatnonzero(counts)
        values = (used - SIDE + 0.5) * width
        low, high = max(values.min(), -largest), min(values.max(), largest)
        limits = largest * np.arange(_CANDIDATES, _SMALLEST - 1, -1) / _CANDIDATES
        errors = [
            _error(values, counts[used], max(low, -limit), min(high, limit), spec)
            for limit in limits
        ]
        return float(limits[int(np.argmin(errors))])  # of equals the largest range


def _error(values: Array, counts: Array, low: float, high: float, spec: QuantSpec) -> float:
    params = range_params(low, high, spec)
    codes = formats.get(spec.format)
    scale, zero = float(params.scale), float(params.zero_point)
    rounded = codes.nearest(values / scale + zero)
    return float((counts * ((rounded - zero) * scale - values) ** 2).sum())


OBSERVER = Mse
