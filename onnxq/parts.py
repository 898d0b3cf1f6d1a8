"""The outputs of a model in parts, so that an error in one is not hidden by the size of another.

Channels whose peaks differ by an order of magnitude are different quantities, such as boxes in
pixels beside scores from 0 to 1: each decade of peaks is a part of its own. Channels lie along axis
1, and in outputs of three axes perhaps along the last; an axis counts if its size is the same in
all samples and at most 256. The SQNR of a part is

    10 log10(sum of squares / sum of squared errors)        [dB]

A few samples whose outputs are far off, such as lines of text in which one letter became another,
are most of that sum, and which ones they are is chance. So two models are told apart by the error
of the typical sample: its geometric mean over the samples stands in place of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnxq.types import Array

_MOST_CHANNELS = 256
_NEGLIGIBLE = 1e-4  # a part whose peak is that small beside the output's has no say
_INAUDIBLE = 1e-6  # of the signal: noise below it counts as that much


@dataclass(frozen=True, eq=False)
class Part:
    """Some channels of an output.

    Attributes:
        output: The name of the output.
        sqnr: In dB.
        typical: With the error of the typical sample, in dB; at most 60.
        axis: Along which the channels lie; None for the whole output.
        channels: bool [channels]: which ones.
    """

    output: str
    sqnr: float
    typical: float
    axis: int | None
    channels: Array

    @property
    def name(self) -> str:
        """In words."""
        if self.channels.all():
            return f"output '{self.output}'"
        return f"output '{self.output}' (channels {_ranges(self.channels)} of axis {self.axis})"


class Parts:
    """Sums over the channels of all outputs, sample by sample."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int | None, _Sums]] = {}

    def add(self, expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
        """Take in the outputs of one sample: as they should be, and as they are."""
        for name, a in expected.items():
            b = found[name]
            if np.issubdtype(a.dtype, np.floating) and a.shape == b.shape and a.size:
                self._add(name, a.astype(np.float64), b.astype(np.float64))

    def all(self) -> list[Part]:
        """All parts, the worst first."""
        parts = [
            part
            for name, by_axis in self._sums.items()
            for axis, sums in by_axis.items()
            for part in sums.parts(name, axis)
        ]
        return sorted(parts, key=lambda part: part.sqnr)

    def _add(self, name: str, expected: Array, found: Array) -> None:
        seen = self._sums.setdefault(
            name, {None: _Sums(1)} | {axis: _Sums(expected.shape[axis]) for axis in _axes(expected)}
        )
        for axis in list(seen):
            if axis is not None and expected.shape[axis] != seen[axis].size:
                del seen[axis]
            else:
                seen[axis].add(_by_channel(expected, axis), _by_channel(found, axis))


class _Sums:
    """Of each channel along one axis."""

    def __init__(self, channels: int) -> None:
        self.size = channels
        self._signal, self._peak = np.zeros(channels), np.zeros(channels)
        self._noise: list[Array] = []  # of each sample

    def add(self, expected: Array, found: Array) -> None:
        self._signal += (expected**2).sum(axis=1)
        self._noise.append(((found - expected) ** 2).sum(axis=1))
        self._peak = np.maximum(self._peak, np.abs(expected).max(axis=1))

    def parts(self, output: str, axis: int | None) -> Iterator[Part]:
        matters = self._peak > _NEGLIGIBLE * self._peak.max()
        noises = np.stack(self._noise)
        decades = np.floor(np.log10(self._peak, where=matters, out=np.zeros(self.size)))
        for decade in np.unique(decades[matters]):
            channels = matters & (decades == decade)
            signal, noise = self._signal[channels].sum(), noises[:, channels].sum(axis=1)
            sqnr = 10 * math.log10(signal / noise.sum()) if noise.any() else math.inf
            shares = np.maximum(noise * noise.size / signal, _INAUDIBLE)
            yield Part(output, sqnr, -10 * float(np.log10(shares).mean()), axis, channels)


def _axes(array: Array) -> list[int]:
    candidates = {1, 2} if array.ndim == 3 else {1} if array.ndim > 1 else set()
    return [axis for axis in sorted(candidates) if 1 < array.shape[axis] <= _MOST_CHANNELS]


def _by_channel(array: Array, axis: int | None) -> Array:
    if axis is None:
        return array.reshape(1, -1)
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _ranges(channels: Array) -> str:
    """The indices that are set, such as "0-3, 7"."""
    edges = np.flatnonzero(np.diff(np.r_[False, channels, False]))
    pairs = [(a, b - 1) for a, b in edges.reshape(-1, 2)]
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in pairs[:4]]
    return ", ".join(shown) + (", ..." if len(pairs) > 4 else "")
