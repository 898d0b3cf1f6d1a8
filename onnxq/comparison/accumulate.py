"""The error of one output over a data set, in memory that does not depend on its length.

Two rules decide what an output is taken for, from the shape that the model declares:

- Logits: rank 2 or 3, the last axis is fixed and at least 2, and of three axes the middle one is
  free (a sequence). Their argmax is compared.
- Channels: of the last two axes of a rank-3 output, the smaller one that is fixed, with 2 to 1024
  indices. Each index is a slice of its own, because one number over all hides the small ones: a
  detector whose boxes are in pixels and whose scores are in [0, 1] may lose every score and still
  read 27 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxq.comparison import metrics
from onnxq.types import Array

_MOST_SLICES = 1024


@dataclass(frozen=True)
class OutputComparison:
    """How far one output of the candidate is from the reference.

    Attributes:
        name: The output of the reference.
        sqnr_db: Signal to quantization noise ratio over the whole data set.
        cosine: Cosine similarity, the mean over the feeds.
        max_abs_error: The largest difference of an element.
        argmax_agreement: The share of rows with the same argmax; None unless it looks like logits.
        worst_slice_db: The lowest SQNR of a channel; None unless it has channels.
        worst_slice: Which channel that is.
        slice_axis: The axis of the channels.
        non_finite_reference: NaN and infinite elements of the reference.
        non_finite_candidate: NaN and infinite elements of the candidate; any of either makes the
            numbers above NaN.
    """

    name: str
    sqnr_db: float
    cosine: float
    max_abs_error: float
    argmax_agreement: float | None
    worst_slice_db: float | None
    worst_slice: int | None
    slice_axis: int | None
    non_finite_reference: int
    non_finite_candidate: int


class OutputError:
    """Takes one output of both models, feed by feed."""

    def __init__(self, name: str, dims: Sequence[Any], is_float: bool) -> None:
        self.name = name
        self._logits = is_float and _looks_like_logits(dims)
        self._slice_axis = _slice_axis(dims)
        self._signal = self._noise = self._cosine = self._max = 0.0
        self._slices: tuple[Array, Array] | None = None
        self._feeds = self._agreeing = self._rows = 0
        self._non_finite = [0, 0]

    def update(self, reference: Array, candidate: Array) -> None:
        """Add the values for one feed."""
        signal, noise = metrics.energies(reference, candidate)
        self._signal += float(signal.sum())
        self._noise += float(noise.sum())
        self._cosine += metrics.cosine(reference, candidate)
        self._max = float(np.maximum(self._max, metrics.max_abs_error(reference, candidate)))
        self._feeds += 1
        self._non_finite[0] += metrics.non_finite(reference)
        self._non_finite[1] += metrics.non_finite(candidate)
        if self._logits:
            agreeing, rows = metrics.argmax_agreement(reference, candidate)
            self._agreeing += agreeing
            self._rows += rows
        if self._slice_axis is not None:
            others = tuple(axis for axis in range(3) if axis != self._slice_axis)
            sums = signal.sum(axis=others), noise.sum(axis=others)
            if self._slices is not None:
                sums = sums[0] + self._slices[0], sums[1] + self._slices[1]
            self._slices = sums

    def finish(self) -> OutputComparison:
        """The numbers over all feeds."""
        worst_db, worst = self._worst_slice()
        return OutputComparison(
            name=self.name,
            sqnr_db=metrics.decibels(self._signal, self._noise),
            cosine=self._cosine / self._feeds,
            max_abs_error=self._max,
            argmax_agreement=self._agreeing / self._rows if self._rows else None,
            worst_slice_db=worst_db,
            worst_slice=worst,
            slice_axis=self._slice_axis,
            non_finite_reference=self._non_finite[0],
            non_finite_candidate=self._non_finite[1],
        )

    def _worst_slice(self) -> tuple[float | None, int | None]:
        if self._slices is None:
            return None, None
        pairs = zip(*self._slices, strict=True)
        ratios = np.array([metrics.decibels(float(s), float(n)) for s, n in pairs])
        worst = int(ratios.argmin())  # a NaN counts as the smallest
        return float(ratios[worst]), worst


def _looks_like_logits(dims: Sequence[Any]) -> bool:
    if len(dims) not in {2, 3} or not _is_fixed(dims[-1]) or dims[-1] < 2:
        return False
    return len(dims) == 2 or not _is_fixed(dims[1])


def _slice_axis(dims: Sequence[Any]) -> int | None:
    if len(dims) != 3:
        return None
    axes = [axis for axis in (1, 2) if _is_fixed(dims[axis]) and 2 <= dims[axis] <= _MOST_SLICES]
    return min(axes, key=lambda axis: int(dims[axis]), default=None)


def _is_fixed(dim: Any) -> bool:  # noqa: ANN401
    return isinstance(dim, int) and dim >= 0
