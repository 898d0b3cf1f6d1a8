"""How often values of each size occur: what observers that clip decide by.

Bins are [i w, (i + 1) w) for i from -2048 to 2047, with w = 2^(e - 11) and e the smallest exponent
that has all values seen below 2^e. Bins of one exponent are made of whole bins of a smaller one, so
counts move from fine to coarse without loss: the result depends on the values alone, not on their
order or batches, to the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from onnxq.errors import RecipeError
from onnxq.observers._range import range_params
from onnxq.observers._tensors import bounds, counts, laid_out
from onnxq.observers.base import State
from onnxq.observers.minmax import MinMax
from onnxq.types import Array, PerTensor, QParams, QuantSpec

SIDE = 2048  # bins on each side of zero
_BITS = 11
_LEAST = -149  # the exponent of the smallest float32; of tensors that are all zero, too
_RANGES = MinMax()


class Range(NamedTuple):
    """What is kept of a tensor's values, and how that was found."""

    low: float
    high: float
    how: str


class Histogram(ABC):
    """Remembers counts, and the smallest and largest value of each channel."""

    name: ClassVar[str]

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Observer`."""
        return {}

    def init(self) -> State:
        """Nothing counted."""
        return {
            **_RANGES.init(),
            "counts": np.zeros(2 * SIDE, np.int64),
            "exponent": np.array(_LEAST, np.int64),
        }

    def update(self, state: State, array: Array) -> State:
        """Count the values of `array` [channels, ...]."""
        if array.size == 0:
            return state
        tensor = laid_out(array)
        low, high = bounds(tensor)
        seen: State = {"min": low, "max": high}
        if not np.isfinite([low, high]).all():
            return {**state, **seen}
        largest = float(max(-low.min(), high.max()))
        exponent = max(int(np.frexp(largest)[1]), _LEAST) if largest else _LEAST
        seen["counts"] = counts(tensor, 2.0 ** (_BITS - exponent), SIDE)
        seen["exponent"] = np.array(exponent, np.int64)
        return self.merge(state, seen)

    def merge(self, left: State, right: State) -> State:
        """The counts of both, in the bins of the coarser one."""
        exponent = max(int(left["exponent"]), int(right["exponent"]))
        both = [_coarser(s["counts"], exponent - int(s["exponent"])) for s in (left, right)]
        ranges = _RANGES.merge(left, right)
        return {
            "min": ranges["min"],
            "max": ranges["max"],
            "counts": both[0] + both[1],
            "exponent": np.array(exponent, np.int64),
        }

    def rescale(self, state: State, factors: Array) -> State:
        """The ranges times `factors`; how often values occur is not known of the product."""
        return {**self.init(), **_RANGES.rescale(state, factors)}

    def finish(self, state: State, spec: QuantSpec) -> QParams:
        """The scale and zero point of the range chosen."""
        if not isinstance(spec.granularity, PerTensor):
            raise RecipeError(
                f"The observer '{self.name}' cannot give a {spec.granularity} scale.",
                "Quantize activations per-tensor.",
            )
        found = self._found(state, spec)
        return range_params(found.low, found.high, spec)

    def explain(self, state: State, spec: QuantSpec) -> str:
        """See `Observer`."""
        found = self._found(state, spec)
        return f"{found.how}, clips {_share_outside(state, found):.2g} %"

    def choose_range(self, counts: Array, width: float, whole: Range, spec: QuantSpec) -> Range:
        """The range to keep of `whole`, which is that of all values; see `choose`."""
        limit = self.choose(counts, width, max(-whole.low, whole.high), spec)
        return Range(max(whole.low, -limit), min(whole.high, limit), self.name)

    def _found(self, state: State, spec: QuantSpec) -> Range:
        _RANGES.finish(state, spec)  # fails if nothing was seen
        whole = Range(float(state["min"].min()), float(state["max"].max()), _RANGES.name)
        if not state["counts"].any():
            return whole
        return self.choose_range(state["counts"], width(state), whole, spec)

    @abstractmethod
    def choose(self, counts: Array, width: float, largest: float, spec: QuantSpec) -> float:
        """The absolute value to clip at.

        Args:
            counts: int64 [4096], of bins of that width; the first half is below zero.
            width: Of a bin.
            largest: The largest absolute value seen.
            spec: What to quantize to.
        """


def width(state: State) -> float:
    """The width of a bin."""
    return float(np.ldexp(1.0, int(state["exponent"]) - _BITS))


def _share_outside(state: State, kept: Range) -> float:
    """How many percent of the values lie in bins that are outside of a range."""
    counts = state["counts"]
    start = np.arange(-SIDE, SIDE) * width(state)
    outside = counts[(start >= kept.high) | (start + width(state) <= kept.low)]
    whole_low, whole_high = float(state["min"].min()), float(state["max"].max())
    clips = kept.low > whole_low or kept.high < whole_high
    return 100 * float(outside.sum()) / max(int(counts.sum()), 1) if clips else 0.0


def magnitudes(counts: Array) -> Array:
    """Counts of absolute values: int64 [2048]."""
    return np.asarray(counts[SIDE:] + counts[:SIDE][::-1])


def _coarser(counts: Array, steps: int) -> Array:
    """The counts in bins that are 2^steps times as wide."""
    if steps == 0:
        return counts
    index = (np.arange(-SIDE, SIDE) >> min(steps, _BITS + 1)) + SIDE
    out = np.zeros(2 * SIDE, np.int64)
    np.add.at(out, index, counts)
    return out
