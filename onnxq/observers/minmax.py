"""The range that covers every value seen, remembered for each channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnxq.errors import DataError, RecipeError
from onnxq.observers._range import range_params
from onnxq.observers._tensors import bounds, laid_out
from onnxq.observers.base import State
from onnxq.types import Array, PerTensor, QParams, QuantSpec


@dataclass(frozen=True)
class MinMax:
    """Remembers the smallest and the largest value of each channel."""

    name: ClassVar[str] = "minmax"
    settings: ClassVar[Mapping[str, Any]] = {}

    def init(self) -> State:
        """No channel yet."""
        return {"min": np.empty(0), "max": np.empty(0)}

    def update(self, state: State, array: Array) -> State:
        """The ranges of `state` widened to the values of `array` [channels, ...]."""
        if array.size == 0:
            return state
        low, high = bounds(laid_out(array))
        return self.merge(state, {"min": low, "max": high})

    def merge(self, left: State, right: State) -> State:
        """The ranges that cover both."""
        if not left["min"].size or not right["min"].size:
            return right if right["min"].size else left
        if left["min"].shape != right["min"].shape:
            raise DataError(
                f"The observer 'minmax' saw {left['min'].size} channels and then "
                f"{right['min'].size}.",
                "Feeds may differ in size, not in their number of channels.",
            )
        return {
            "min": np.minimum(left["min"], right["min"]),
            "max": np.maximum(left["max"], right["max"]),
        }

    def rescale(self, state: State, factors: Array) -> State:
        """The ranges times `factors` [channels]."""
        return {"min": state["min"] * factors, "max": state["max"] * factors}

    def finish(self, state: State, spec: QuantSpec) -> QParams:
        """The scale and zero point that let no value seen be clipped."""
        if not isinstance(spec.granularity, PerTensor):
            raise RecipeError(
                f"The observer 'minmax' cannot give a {spec.granularity} scale: "
                "it remembers one range for the whole tensor.",
                "Quantize activations per-tensor.",
            )
        if not state["min"].size:
            raise DataError("The observer 'minmax' saw no value.", "Calibrate with more data.")
        return range_params(float(state["min"].min()), float(state["max"].max()), spec)

    def explain(self, state: State, spec: QuantSpec) -> str:
        """See `Observer`."""
        del state, spec
        return "minmax, clips 0 %"


OBSERVER = MinMax
