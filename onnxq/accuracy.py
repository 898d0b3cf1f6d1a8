"""The accuracy of a static plan: measured on data, and mended where that pays.

Activations are equalized where an op gains by it; an op whose own output would be harmed stays in
float; biases take back what rounding adds on average; and if the outputs of the model gain by it,
residual sums read floats and a few more ops stay in float.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.calib.feeds import FeedSource, Sample
from onnxq.calib.store import CalibStore
from onnxq.clipping import Choice, choose, unclipped
from onnxq.equalization import equalize
from onnxq.fidelity import measure_ops
from onnxq.outputs import Outputs
from onnxq.parts import Part
from onnxq.passes.plan import QuantPlan
from onnxq.passes.transforms.correct_bias import CorrectBias
from onnxq.recipe import Recovery
from onnxq.recovery import judge, recover
from onnxq.residual_sums import settle

_ELEMENTS = 1 << 20  # of the feeds to measure ops on
_LEAST = 4  # of the feeds


@dataclass(frozen=True)
class Measured:
    """What was measured of a plan; empty where there was no data.

    Attributes:
        sqnr: Of each op that was planned at first, in dB, by its name.
        alphas: How much of the activation of an op was moved into its weights, by the op's name.
        corrected: The ops from whose biases a shift was taken.
        parts: Of the outputs, the worst first.
        samples: What the outputs were measured on, in words.
        clipping: What is clipped and why, in words.
    """

    sqnr: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    corrected: Collection[str] = ()
    parts: Sequence[Part] = ()
    samples: str = ""
    clipping: str = ""


def mend(
    model: ir.Model, plan: QuantPlan, store: CalibStore, feeds: FeedSource
) -> tuple[QuantPlan, CalibStore, Measured]:
    """Change a plan so that the model keeps its accuracy.

    Args:
        model: The float model, prepared; equalized in place, which changes nothing it computes.
        plan: Its static plan.
        store: Its statistics.
        feeds: The data; what was calibrated on serves to measure ops, what was held out to judge
            the outputs.

    Returns:
        The plan and the statistics of the model as it is now, and what was measured.
    """
    recipe, samples = plan.recipe, _enough(feeds.some())
    held_out = feeds.held_out()
    store = unclipped(store)
    found = measure_ops(model, plan, store.params, samples)
    equalized = equalize(model, plan, store, found, samples)
    store, fidelity = equalized.store, equalized.fidelity
    plan = plan.again(model)
    plan = plan.leave_float(_too_noisy(plan, fidelity.sqnr))
    if not plan.products:
        return plan, store, Measured(fidelity.sqnr, equalized.alphas)
    outputs = Outputs(model, held_out or samples)
    enough = (recipe.recovery or Recovery()).min_sqnr
    judged = judge(outputs, plan, store.params, fidelity.shifts, enough)
    choice = choose(model, plan, store, fidelity, judged, samples, outputs, enough)
    if harmed := _too_noisy(plan, choice.fidelity.sqnr):
        why = f"nothing: it would harm {', '.join(harmed)}"
        choice = Choice(store, fidelity, judged, why)
    store, fidelity, judged = choice.store, choice.fidelity, choice.judged
    plan, judged = settle(outputs, plan, store.params, judged, enough)
    recovered = recover(
        model, plan, store.params, fidelity.sqnr, judged, samples, outputs, recipe.recovery
    )
    plan = plan.leave_float(recovered.reasons)
    CorrectBias(plan, judged.shifts)(model)
    corrected = judged.shifts.keys() & {op.node for op in plan.ops}
    where = "held out of the calibration data" if held_out else "of the calibration data"
    on = f"{len(outputs.samples)} samples {where}"
    parts = recovered.parts
    return plan, store, Measured(fidelity.sqnr, equalized.alphas, corrected, parts, on, choice.why)


def _enough(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those to measure ops on: where feeds are large, a few have values enough."""
    sizes = itertools.accumulate(sum(a.size for a in sample.feed.values()) for sample in samples)
    few = sum(1 for size in sizes if size <= _ELEMENTS)
    return samples[: max(few, _LEAST)]


def _too_noisy(plan: QuantPlan, sqnr: Mapping[str, float]) -> dict[str, str]:
    """The ops below the least SQNR of the recipe, each with the reason to leave it in float."""
    least = plan.recipe.activations.min_op_sqnr
    planned = {op.node for op in plan.ops}
    return {
        node: f"{plan.recipe.preset} would leave {found:.1f} dB of its output's signal "
        f"above the noise; {least:.1f} dB are asked for"
        for node, found in sqnr.items()
        if least is not None and found < least and node in planned
    }
