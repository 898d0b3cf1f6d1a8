"""Giving accuracy back: the ops that cost the outputs most are left in float, a few of them.

How much an op's error costs depends on what comes behind it, so it is tried: the ops least true to
their originals first, each left in float if the outputs gain by it.

The outputs are judged by their worst part. Channels (slices along axis 1) whose peaks differ by an
order of magnitude are different quantities, such as boxes in pixels beside scores from 0 to 1, and
one of them would hide the other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.insert import ActivationParams, InsertQdq
from onnxq.progress import progress
from onnxq.recipe import Recovery
from onnxq.types import Array

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]

_GAIN = 1.0  # dB: what an op in float must be worth
_TRIES = 3  # for each op that may stay in float
_NEGLIGIBLE = 1e-4  # a part whose peak is that small beside the output's has no say


@dataclass(frozen=True)
class Recovered:
    """What `recover` did.

    Attributes:
        reasons: The ops to leave in float, each with its reason.
        sqnr: Of the worst part of the outputs with them in float, in dB.
    """

    reasons: dict[str, str]
    sqnr: float


def recover(
    model: ir.Model,
    plan: QuantPlan,
    params: ActivationParams,
    fidelity: Mapping[str, float],
    samples: Sequence[Sample],
    limits: Recovery,
) -> Recovered:
    """Find the ops to leave in float until the outputs are good enough.

    Args:
        model: The float model, prepared; not modified.
        plan: Its static plan.
        params: Gives the calibrated scale and zero point of a value by its name.
        fidelity: The SQNR of every planned op, in dB.
        samples: To measure on.
        limits: When to stop.
    """
    reference = runtime.session(model, memory_flat=True)
    reasons: dict[str, str] = {}

    def sqnr(left: Mapping[str, str]) -> float:
        clone = model.clone()
        InsertQdq(plan.leave_float(left).again(clone), params)(clone)
        candidate = runtime.session(clone, memory_flat=True)
        return _worst_part(reference, candidate, samples)

    least_true = sorted(plan.ops, key=lambda op: fidelity[op.node])
    most = min(math.ceil(limits.max_float_ops * len(plan.ops)), len(plan.ops) - 1)
    current = sqnr(reasons)
    with progress("Recovering accuracy", _TRIES * most) as advance:
        for op in least_true[: _TRIES * most]:
            if current >= limits.min_sqnr or len(reasons) >= most:
                break
            without = sqnr({**reasons, op.node: ""})
            if without >= current + _GAIN:
                reasons[op.node] = (
                    f"in int8 it alone costs the outputs {without - current:.1f} dB: "
                    f"{current:.1f} dB with it, {without:.1f} dB without"
                )
                current = without
            advance()
    return Recovered(reasons, current)


def _worst_part(
    reference: ort.InferenceSession, candidate: ort.InferenceSession, samples: Sequence[Sample]
) -> float:
    """The lowest SQNR of a part of an output, in dB."""
    names = [value.name for value in reference.get_outputs()]
    parts: dict[str, _Channels] = defaultdict(_Channels)
    for sample in samples:
        expected, found = (
            runtime.run(session, names, sample.feed, sample.label)
            for session in (reference, candidate)
        )
        for name, a, b in zip(names, expected, found, strict=True):
            if np.issubdtype(a.dtype, np.floating) and a.shape == b.shape and a.size:
                parts[name].add(a.astype(np.float64), b.astype(np.float64))
    return min((part.worst() for part in parts.values()), default=math.inf)


class _Channels:
    """Sums over each channel of one output."""

    def __init__(self) -> None:
        self._signal, self._noise, self._peak = np.zeros(1), np.zeros(1), np.zeros(1)

    def add(self, expected: Array, found: Array) -> None:
        channels = expected.shape[1] if expected.ndim > 1 else 1
        if channels != self._peak.size:
            self._signal, self._noise, self._peak = (np.zeros(channels) for _ in range(3))
        a, b = (
            np.moveaxis(x, 1, 0).reshape(channels, -1) if x.ndim > 1 else x.reshape(1, -1)
            for x in (expected, found)
        )
        self._signal += (a**2).sum(axis=1)
        self._noise += ((b - a) ** 2).sum(axis=1)
        self._peak = np.maximum(self._peak, np.abs(a).max(axis=1))

    def worst(self) -> float:
        matters = self._peak > _NEGLIGIBLE * self._peak.max()
        decades = np.floor(np.log10(self._peak, where=matters, out=np.zeros_like(self._peak)))
        found = [math.inf]
        for decade in np.unique(decades[matters]):
            part = matters & (decades == decade)
            if self._noise[part].sum() > 0:
                ratio = self._signal[part].sum() / self._noise[part].sum()
                found.append(10 * math.log10(ratio))
        return min(found)
