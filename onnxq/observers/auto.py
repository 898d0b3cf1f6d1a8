"""The range chosen for each tensor by the error that it causes.

Candidates are the ranges cut off at 63/64 to 8/64 of the largest absolute value; where the grid
need not be symmetric, also those whose low and high ends are searched one after the other. The
error is

    sum of squared rounding errors + 16 * sum of squared clipping errors

because what is clipped is off in one direction, in all the large values that an op adds up at once,
where errors of rounding average out; and because real use has larger values than calibration saw.
Clipping is taken only where it brings the error down to a share, which `onnxq.clipping` chooses
where the outputs of the model can be measured. Bins too coarse to tell the rounding error of a
format clip nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from onnxq.observers._error import Spread
from onnxq.observers._histogram import Histogram, Range
from onnxq.types import Array, QuantSpec

_CLIPPED = 16.0  # times the error of a value that is clipped counts
_SHARES = np.arange(63, 7, -1) / 64  # of the largest absolute value
_END_SHARES = np.arange(60, 15, -4) / 64  # of an end, tried by itself


@dataclass(frozen=True)
class Auto(Histogram):
    """Clips where that brings the error down to `share`: nothing if that is 0."""

    share: float = 0.5
    name: ClassVar[str] = "auto"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The share."""
        return {"share": self.share}

    def choose_range(self, counts: Array, width: float, whole: Range, spec: QuantSpec) -> Range:
        """See `Histogram.choose_range`."""
        if not self.share:
            return whole
        spread = Spread.of(counts, width, whole.low, whole.high)
        if not spread.values.any():
            return whole
        best, bound = whole, self.share * spread.error(whole.low, whole.high, spec)
        for candidate in _candidates(spread, whole, spec):
            if spread.is_coarse(candidate.low, candidate.high, spec):
                continue
            error = spread.error(candidate.low, candidate.high, spec, _CLIPPED)
            if error < bound:
                best, bound = candidate, error
        return best

    def choose(self, counts: Array, width: float, largest: float, spec: QuantSpec) -> float:
        """See `Histogram.choose`."""
        found = self.choose_range(counts, width, Range(-largest, largest, self.name), spec)
        return max(-found.low, found.high)


def _candidates(spread: Spread, whole: Range, spec: QuantSpec) -> Iterator[Range]:
    for limit in max(-whole.low, whole.high) * _SHARES:
        yield Range(max(whole.low, -limit), min(whole.high, limit), "auto")
    if spec.symmetric or whole.low >= 0 or whole.high <= 0:
        return
    error = partial(spread.error, spec=spec, clipped=_CLIPPED)
    low, high = whole.low, whole.high
    for _ in range(2):
        low = min([low, *(whole.low * _END_SHARES)], key=lambda end: error(end, high))
        high = min([high, *(whole.high * _END_SHARES)], key=lambda end: error(low, end))
    yield Range(float(low), float(high), "auto, each end")


OBSERVER = Auto
