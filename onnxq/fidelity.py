"""How true each quantized op is to its float original, measured on data.

    SQNR = 10 log10(variance of the op's output / mean squared error)        [dB]
    shift_c = the mean error of output channel c

Each op reads what it reads in the float model, so the numbers are its own: an op that is low on
SQNR is where the accuracy is lost. The mean of the output is no signal; biases restore it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.cpu import is_meant
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.insert import ActivationParams
from onnxq.passes.qdq.shifts import Shift
from onnxq.passes.qdq.sums import Sums
from onnxq.passes.qdq.twins import add_twins
from onnxq.progress import progress
from onnxq.types import Array


@dataclass(frozen=True)
class Fidelity:
    """What was found of each op, by its name.

    Attributes:
        sqnr: In dB; +inf for an op without error. Of an op whose output goes several ways, the
            worst.
        shifts: Of the ops that have a bias or room for one: float64 [output channels].
    """

    sqnr: Mapping[str, float]
    shifts: Mapping[str, Array]

    def updated(self, other: Fidelity, nodes: Collection[str]) -> Fidelity:
        """This, with what `other` found of some ops."""
        return Fidelity(
            {**self.sqnr, **{n: x for n, x in other.sqnr.items() if n in nodes}},
            {**self.shifts, **{n: x for n, x in other.shifts.items() if n in nodes}},
        )


def measure_ops(
    model: ir.Model,
    plan: QuantPlan,
    params: ActivationParams,
    samples: Sequence[Sample],
    nodes: Collection[str] | None = None,
) -> Fidelity:
    """The fidelity of every static op of a plan.

    Args:
        model: The float model, prepared; not modified.
        plan: Its plan, or that of a copy.
        params: Gives the calibrated scale and zero point of a value by its name.
        samples: What to measure on.
        nodes: The names of the ops to measure; all of the plan if None.
    """
    clone = model.clone()
    again = plan.again(clone)
    ops = tuple(op for op in again.ops if nodes is None or op.node in nodes)
    twins = add_twins(clone, replace(again, ops=ops), params)
    names = [value.name or "" for value in clone.graph.outputs]
    fuse_qdq = is_meant(plan.target, plan.recipe.preset)
    session = runtime.session(clone, memory_flat=True, fuse_qdq=fuse_qdq)
    totals: dict[str, Array] = {name: np.zeros(()) for name in names}
    with progress("Measuring each op", len(samples)) as advance:
        for sample in samples:
            for name, found in zip(
                names, runtime.run(session, names, sample.feed, sample.label), strict=True
            ):
                totals[name] = totals[name] + found.astype(np.float64)
            advance()
    scalars = {name: float(total.sum()) for name, total in totals.items()}
    return Fidelity(
        {
            node: min(sqnr(each, scalars) for each in several)
            for node, several in twins.sums.items()
        },
        {
            node: _mean(shift, totals)
            for node, shift in twins.shifts.items()
            if scalars[shift.elements]  # a branch may never have been taken
        },
    )


def sqnr(sums: Sums, totals: Mapping[str, float]) -> float:
    """The SQNR in dB, from the totals of the sums over all samples."""
    noise, squares, total, elements = (totals[name] for name in sums)
    if not noise or not elements:
        return math.inf
    variance = squares / elements - (total / elements) ** 2
    return 10 * math.log10(variance / (noise / elements)) if variance > 0 else -math.inf


def _mean(shift: Shift, totals: Mapping[str, Array]) -> Array:
    sums = totals[shift.sums]
    return np.asarray(sums * sums.size / totals[shift.elements])
