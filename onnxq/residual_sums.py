"""Whether residual sums read codes or floats: judged by the outputs of the model.

Codes save memory traffic and round what a block hands on once more. Where the outputs are not good
enough, one more measurement tells whether floats there would make them better.
"""

from __future__ import annotations

from dataclasses import replace

from onnxq.outputs import Outputs
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.insert import ActivationParams
from onnxq.recovery import Judged

_GAIN = 1.0  # dB: what floats must be worth, for a typical sample, over the parts of the outputs


def settle(
    outputs: Outputs,
    plan: QuantPlan,
    params: ActivationParams,
    judged: Judged,
    enough: float,
) -> tuple[QuantPlan, Judged]:
    """Let the residual sums of a plan read floats if the outputs gain by it.

    Args:
        outputs: Of the float model, to measure beside.
        plan: The static plan of the model.
        params: Gives the calibrated scale and zero point of a value by its name.
        judged: The outputs as planned.
        enough: For the worst part of the outputs, in dB: nothing is changed where they are that
            good.

    Returns:
        The plan, and the outputs with it.
    """
    if not plan.residuals or plan.recipe.recovery is None:
        return plan, judged
    if not judged.parts or judged.parts[0].sqnr >= enough:
        return plan, judged
    floats = plan.leave_float({residual.node: "" for residual in plan.residuals})
    found = replace(judged, parts=outputs.parts(floats, params, judged.shifts))
    if found.typical < judged.typical + _GAIN:
        return plan, judged
    cost = found.typical - judged.typical
    why = f"reading codes, the residual sums cost a typical sample {cost:.1f} dB of its outputs"
    return plan.leave_float({residual.node: why for residual in plan.residuals}), found
