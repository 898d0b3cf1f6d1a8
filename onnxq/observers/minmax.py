"""The range that covers every value seen, remembered for each channel.

Let [low, high] be the range seen, widened to contain 0, and [qmin, qmax] the codes of the format.

    symmetric    scale = max(-low, high) / (qmax - middle)    zero_point = middle
    asymmetric   scale = (high - low) / (qmax - qmin)         zero_point = round(qmin - low / scale)

`middle` is 0 in a signed format and 2^(bits-1) in an unsigned one. Rounding is half to even. Real
zero is a code in both, so zero padding costs nothing. A tensor that is always zero gets scale 1,
which represents it exactly. A scale below the smallest normal float32 is raised to that, because
runtimes flush denormals to zero and then divide by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnxq import formats
from onnxq.errors import DataError, RecipeError
from onnxq.observers.base import State
from onnxq.types import Array, PerTensor, QParams, QuantSpec

_FLOAT32 = np.finfo(np.float32)


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
        others = tuple(range(1, array.ndim))
        # Adding 0.0 turns -0.0 into 0.0, which compare equal: the order would choose between them.
        seen = {
            "min": array.min(axis=others).astype(np.float64) + 0.0,
            "max": array.max(axis=others).astype(np.float64) + 0.0,
        }
        return self.merge(state, seen)

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
        low = min(float(state["min"].min()), 0.0)
        high = max(float(state["max"].max()), 0.0)
        codes = formats.get(spec.format)
        if spec.symmetric:
            scale = _scale(max(-low, high) / (codes.qmax - codes.middle))
            zero_point = codes.middle
        else:
            steps = codes.qmax - codes.qmin
            scale = _scale(high / steps - low / steps)
            zero_point = int(
                np.clip(np.rint(codes.qmin - low / float(scale)), codes.qmin, codes.qmax)
            )
        return QParams(scale, np.array(zero_point, codes.carrier))


def _scale(exact: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    if exact == 0.0:
        return np.array(1.0, np.float32)
    return np.array(min(max(exact, float(_FLOAT32.tiny)), float(_FLOAT32.max)), np.float32)


OBSERVER = MinMax
