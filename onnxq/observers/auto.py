"""The range chosen for each tensor by the error that it causes.

Candidates are the ranges of minmax, percentile, entropy and mse; where the grid need not be
symmetric, also those whose low and high ends are searched one after the other. Clipping is taken
only where it brings the mean squared error down to a quarter: what is clipped are the largest
values of the tensor, which count for more in the outputs of a model than their number says, even
where the op that reads them gains. Bins too coarse to tell the rounding error of a format clip
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxq.observers._error import Spread
from onnxq.observers._histogram import Histogram, Range
from onnxq.observers.entropy import Entropy
from onnxq.observers.mse import Mse
from onnxq.observers.percentile import Percentile
from onnxq.types import Array, QuantSpec

_GAIN = 0.25  # of the error of minmax, that a range which clips must come down to
_SHARES = np.arange(60, 15, -4) / 64  # of an end, tried by itself
_CLIPPING: tuple[Histogram, ...] = (Percentile(), Entropy(), Mse())


@dataclass(frozen=True)
class Auto(Histogram):
    """Clips where that quarters the error."""

    name: ClassVar[str] = "auto"

    def choose_range(self, counts: Array, width: float, whole: Range, spec: QuantSpec) -> Range:
        """See `Histogram.choose_range`."""
        spread = Spread.of(counts, width, whole.low, whole.high)
        if not spread.values.any():
            return whole
        best, bound = whole, _GAIN * spread.error(whole.low, whole.high, spec)
        for candidate in self._candidates(spread, counts, width, whole, spec):
            if spread.is_coarse(candidate.low, candidate.high, spec):
                continue
            error = spread.error(candidate.low, candidate.high, spec)
            if error < bound:
                best, bound = candidate, error
        return best

    def choose(self, counts: Array, width: float, largest: float, spec: QuantSpec) -> float:
        """See `Histogram.choose`."""
        found = self.choose_range(counts, width, Range(-largest, largest, self.name), spec)
        return max(-found.low, found.high)

    def _candidates(
        self, spread: Spread, counts: Array, width: float, whole: Range, spec: QuantSpec
    ) -> Iterator[Range]:
        for observer in _CLIPPING:
            yield observer.choose_range(counts, width, whole, spec)
        if spec.symmetric or whole.low >= 0 or whole.high <= 0:
            return
        found = whole
        for _ in range(2):
            lows = [found.low, *(whole.low * _SHARES)]
            errors = [spread.error(low, found.high, spec) for low in lows]
            found = Range(float(lows[int(np.argmin(errors))]), found.high, "mse of each end")
            highs = [found.high, *(whole.high * _SHARES)]
            errors = [spread.error(found.low, high, spec) for high in highs]
            found = Range(found.low, float(highs[int(np.argmin(errors))]), "mse of each end")
        yield found


OBSERVER = Auto
