"""The largest absolute value of each channel: symmetric scales, per tensor or per channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnxq.errors import DataError, RecipeError
from onnxq.observers._range import range_params
from onnxq.observers._tensors import bounds, laid_out
from onnxq.observers.base import State
from onnxq.types import Array, PerAxis, PerBlock, QParams, QuantSpec


@dataclass(frozen=True)
class AbsMax:
    """Remembers the largest absolute value of each channel."""

    name: ClassVar[str] = "absmax"
    settings: ClassVar[Mapping[str, Any]] = {}

    def init(self) -> State:
        """No channel yet."""
        return {"absmax": np.empty(0)}

    def update(self, state: State, array: Array) -> State:
        """The values of `state` raised to those of `array` [channels, ...]."""
        if array.size == 0:
            return state
        low, high = bounds(laid_out(array))
        return self.merge(state, {"absmax": np.maximum(np.abs(low), np.abs(high))})

    def merge(self, left: State, right: State) -> State:
        """The larger value of each channel."""
        if not left["absmax"].size or not right["absmax"].size:
            return right if right["absmax"].size else left
        if left["absmax"].shape != right["absmax"].shape:
            raise DataError(
                f"The observer 'absmax' saw {left['absmax'].size} channels and then "
                f"{right['absmax'].size}.",
                "Feeds may differ in size, not in their number of channels.",
            )
        return {"absmax": np.maximum(left["absmax"], right["absmax"])}

    def rescale(self, state: State, factors: Array) -> State:
        """The values times `factors` [channels]."""
        return {"absmax": state["absmax"] * factors}

    def finish(self, state: State, spec: QuantSpec) -> QParams:
        """The scale, or that of each channel, that lets no value seen be clipped."""
        if not spec.symmetric or isinstance(spec.granularity, PerBlock):
            raise RecipeError(
                f"The observer 'absmax' cannot give a scale for {spec}: "
                "it remembers no signs, and one value a channel.",
                "Use the observer minmax, or quantize symmetrically per tensor or per channel.",
            )
        found = state["absmax"]
        if not found.size:
            raise DataError("The observer 'absmax' saw no value.", "Calibrate with more data.")
        if not isinstance(spec.granularity, PerAxis):
            return range_params(0.0, float(found.max()), spec)
        each = [range_params(0.0, float(largest), spec) for largest in found]
        return QParams(
            np.array([params.scale for params in each]),
            np.array([params.zero_point for params in each]),
        )

    def explain(self, state: State, spec: QuantSpec) -> str:
        """See `Observer`."""
        del state, spec
        return "absmax, clips 0 %"


OBSERVER = AbsMax
