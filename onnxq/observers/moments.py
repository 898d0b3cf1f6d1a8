"""Sums and sums of squares of each channel; if asked for, of the products of every two.

Of a tensor [K, n] of K channels, with one column x for each place:

    count = n      sum = sum of x      square = sum of x^2, or with `full` H = sum of x x^T [K, K]

H is what weight algorithms that minimize the error of an output minimize with: ||W X - Q X||^2 =
tr((W - Q) H (W - Q)^T). Sums are in float64; their order changes them by rounding alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from onnxq.errors import DataError, RecipeError
from onnxq.observers.base import State
from onnxq.types import Array, QuantSpec

_COLUMNS = 4096  # turned into float64 at once


@dataclass(frozen=True)
class Moments:
    """Remembers the mean and the second moment of each channel, or of all pairs of channels."""

    full: bool = False
    name: ClassVar[str] = "moments"

    @property
    def settings(self) -> Mapping[str, Any]:
        """Whether products of different channels are summed."""
        return {"full": self.full}

    def init(self) -> State:
        """No channel yet."""
        square = np.empty((0, 0)) if self.full else np.empty(0)
        return {"count": np.array(0, np.int64), "sum": np.empty(0), "square": square}

    def update(self, state: State, array: Array) -> State:
        """The sums with those of `array` [channels, ...] added."""
        if array.size == 0:
            return state
        channels = array.reshape(array.shape[0], -1)
        seen = self.init()
        for start in range(0, channels.shape[1], _COLUMNS):
            x = channels[:, start : start + _COLUMNS].astype(np.float64)
            square = x @ x.T if self.full else np.einsum("ij,ij->i", x, x)
            part = {"count": np.array(x.shape[1], np.int64), "sum": x.sum(axis=1), "square": square}
            seen = self.merge(seen, part)
        return self.merge(state, seen)

    def merge(self, left: State, right: State) -> State:
        """The sums of both."""
        if not left["sum"].size or not right["sum"].size:
            return right if right["sum"].size else left
        if left["sum"].shape != right["sum"].shape:
            raise DataError(
                f"The observer 'moments' saw {left['sum'].size} channels and then "
                f"{right['sum'].size}.",
                "Feeds may differ in size, not in their number of channels.",
            )
        return {field: np.asarray(left[field] + right[field]) for field in left}

    def rescale(self, state: State, factors: Array) -> State:
        """The sums of the channels times `factors`."""
        if not state["sum"].size:
            return state
        squared = np.outer(factors, factors) if self.full else factors * factors
        return {
            "count": state["count"],
            "sum": state["sum"] * factors,
            "square": state["square"] * squared,
        }

    def finish(self, state: State, spec: QuantSpec) -> NoReturn:
        """Refuses: moments tell no range."""
        raise RecipeError(
            f"The observer 'moments' cannot give a scale for {spec}: how large values are on "
            "average does not tell how large they get.",
            "Calibrate with the observer auto or minmax; moments are for algorithms of weights.",
        )

    def explain(self, state: State, spec: QuantSpec) -> str:
        """Refuses, as `finish` does."""
        self.finish(state, spec)


def mean(state: State) -> Array:
    """The mean of each channel: float64 [K].

    Raises:
        DataError: Nothing was seen.
    """
    return np.asarray(state["sum"] / _count(state))


def second_moment(state: State) -> Array:
    """The mean of x^2 of each channel, float64 [K]; of x x^T, float64 [K, K], if it is `full`.

    Raises:
        DataError: Nothing was seen.
    """
    return np.asarray(state["square"] / _count(state))


def _count(state: State) -> int:
    if not state["count"]:
        raise DataError("The observer 'moments' saw no value.", "Calibrate with more data.")
    return int(state["count"])


OBSERVER = Moments
