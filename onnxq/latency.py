"""How long one inference of a quantized model takes beside the float one, in ONNX Runtime.

Both run in turns on the same samples, so that whatever else the machine does meets both, and the
medians are compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.errors import TargetError
from onnxq.targets import Target

_SECONDS = 10.0
_LEAST_RUNS, _MOST_RUNS = 5, 200


@dataclass(frozen=True)
class Latency:
    """Medians over several inferences.

    Attributes:
        float_ms: Of the float model, in milliseconds.
        quantized_ms: Of the quantized one.
        samples: What they ran on, in words.
    """

    float_ms: float
    quantized_ms: float
    samples: str

    @property
    def speedup(self) -> float:
        """How many times as fast as float the quantized model is."""
        return self.float_ms / self.quantized_ms


def require_measurable(target: Target) -> None:
    """Check that the latency on `target` is that of ONNX Runtime on this machine's CPU.

    Raises:
        TargetError: It is not.
    """
    if target.backend != "onnxruntime" or target.provider != "cpu":
        raise TargetError(
            f"The latency on '{target.name}' ({target.hardware}) cannot be measured here: only "
            "that of ONNX Runtime on this CPU can.",
            "Leave out --measure, or ask for ort-cpu.",
        )


def measure_latency(
    model: ir.Model, quantized: ir.Model, samples: Sequence[Sample], what: str
) -> Latency:
    """Run both models on the samples in turns, for some ten seconds at most.

    Args:
        model: In float.
        quantized: The same, quantized.
        samples: The inputs.
        what: What they are, in words.
    """
    sessions = [runtime.session(each) for each in (model, quantized)]
    taken: tuple[list[float], list[float]] = ([], [])
    for session in sessions:
        session.run(None, runtime.fitted(session, samples[0].feed))
    begun = time.perf_counter()
    for run in range(_MOST_RUNS):
        sample = samples[run % len(samples)]
        for session, times in zip(sessions, taken, strict=True):
            feed = runtime.fitted(session, sample.feed)
            started = time.perf_counter()
            session.run(None, feed)
            times.append(1000 * (time.perf_counter() - started))
        if run + 1 >= _LEAST_RUNS and time.perf_counter() - begun > _SECONDS:
            break
    return Latency(statistics.median(taken[0]), statistics.median(taken[1]), what)
