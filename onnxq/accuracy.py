"""The accuracy of a static plan: measured on data, and mended where that pays.

Activations are equalized where an op gains by it; an op whose own output int8 would harm stays in
float; and a few more do if the outputs of the model gain by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.calib.feeds import Sample
from onnxq.calib.store import CalibStore
from onnxq.equalization import equalize
from onnxq.fidelity import op_sqnr
from onnxq.parts import Part
from onnxq.passes.plan import QuantPlan
from onnxq.recovery import recover


@dataclass(frozen=True)
class Measured:
    """What was measured of a plan; empty where there was no data.

    Attributes:
        sqnr: Of each op that was planned at first, in dB, by its name.
        alphas: How much of the activation of an op was moved into its weights, by the op's name.
        parts: Of the outputs, the worst first.
        samples: What it was measured on, in words.
    """

    sqnr: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    samples: str = ""


def mend(
    model: ir.Model, plan: QuantPlan, store: CalibStore, samples: Sequence[Sample]
) -> tuple[QuantPlan, CalibStore, Measured]:
    """Change a plan so that the model keeps its accuracy.

    Args:
        model: The float model, prepared; equalized in place, which changes nothing it computes.
        plan: Its static plan.
        store: Its statistics.
        samples: To measure on.

    Returns:
        The plan and the statistics of the model as it is now, and what was measured.
    """
    recipe = plan.recipe
    equalized = equalize(model, plan, store, op_sqnr(model, plan, store.params, samples), samples)
    store, sqnr = equalized.store, equalized.sqnr
    plan = plan.again(model)
    plan = plan.leave_float(_too_noisy(plan, sqnr))
    if not plan.ops:
        return plan, store, Measured(sqnr, equalized.alphas)
    recovered = recover(model, plan, store.params, sqnr, samples, recipe.recovery)
    plan = plan.leave_float(recovered.reasons)
    return plan, store, Measured(sqnr, equalized.alphas, recovered.parts)


def _too_noisy(plan: QuantPlan, sqnr: Mapping[str, float]) -> dict[str, str]:
    """The ops below the least SQNR of the recipe, each with the reason to leave it in float."""
    least = plan.recipe.activations.min_op_sqnr
    return {
        node: f"{plan.recipe.preset} would leave {found:.1f} dB of its output's signal "
        f"above the noise; {least:.1f} dB are asked for"
        for node, found in sqnr.items()
        if least is not None and found < least
    }
