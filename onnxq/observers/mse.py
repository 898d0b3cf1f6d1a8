"""The range whose rounding and clipping errors have the least mean square.

Of the ranges that are 8/64 to 64/64 of the largest absolute value: down to there every bin is finer
than the step of an 8-bit code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxq.observers._error import Spread
from onnxq.observers._histogram import SIDE, Histogram
from onnxq.types import Array, QuantSpec

_CANDIDATES, _SMALLEST = 64, 8


@dataclass(frozen=True)
class Mse(Histogram):
    """Clips where the mean squared error is least."""

    name: ClassVar[str] = "mse"

    def choose(self, counts: Array, width: float, largest: float, spec: QuantSpec) -> float:
        """See `Histogram.choose`."""
        used = np.flatnonzero(counts)
        low = max((int(used[0]) - SIDE) * width, -largest)
        high = min((int(used[-1]) - SIDE + 1) * width, largest)
        spread = Spread.of(counts, width, low, high)
        limits = largest * np.arange(_CANDIDATES, _SMALLEST - 1, -1) / _CANDIDATES
        errors = [spread.error(max(low, -limit), min(high, limit), spec) for limit in limits]
        return float(limits[int(np.argmin(errors))])  # of equals the largest range


OBSERVER = Mse
