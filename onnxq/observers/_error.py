"""The squared error that a grid makes on values of which only counts in bins are known.

Values are taken as spread evenly over their bin, cut off at the smallest and largest value seen.
Where a bin is wider than a step of the grid, that is a guess: see `is_coarse`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxq import formats
from onnxq.observers._range import range_params
from onnxq.types import Array, QuantSpec

_POINTS = (np.arange(2) + 0.5) / 2  # of a bin


@dataclass(frozen=True, eq=False)
class Spread:
    """Values [n] and how many elements of the tensor each stands for."""

    values: Array
    weights: Array
    bin_width: float

    @classmethod
    def of(cls, counts: Array, width: float, low: float, high: float) -> Spread:
        """From counts of the bins around zero, and the smallest and largest value seen."""
        used = np.flatnonzero(counts)
        start = (used - counts.size // 2) * width
        below, above = np.maximum(start, low), np.minimum(start + width, high)
        values = below[:, None] + (above - below)[:, None] * _POINTS
        weights = np.repeat(counts[used] / _POINTS.size, _POINTS.size)
        return cls(values.ravel(), weights, width)

    def error(self, low: float, high: float, spec: QuantSpec, clipped: float = 1.0) -> float:
        """The sum of squared errors of the grid that covers [low, high].

        Args:
            low: The lower end.
            high: The upper end.
            spec: What to quantize to.
            clipped: How many times the error of a value beyond the ends counts.
        """
        difference = nearest(self.values, low, high, spec) - self.values
        squares = difference * difference
        if clipped != 1.0:
            squares[(self.values < low) | (self.values > high)] *= clipped
        return float(self.weights @ squares)

    def is_coarse(self, low: float, high: float, spec: QuantSpec) -> bool:
        """Whether a bin holds more than one step of that grid: its rounding errors are a guess."""
        return self.bin_width > float(range_params(low, high, spec).scale)


def nearest(values: Array, low: float, high: float, spec: QuantSpec) -> Array:
    """The value nearest to each on the grid of `spec` that covers [low, high]."""
    params, codes = range_params(low, high, spec), formats.get(spec.format)
    scale, zero = float(params.scale), float(params.zero_point)
    return np.asarray((codes.nearest(values / scale + zero) - zero) * scale)
