"""What quantization adds to the output channels of each op on average, measured on data."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.insert import ActivationParams
from onnxq.passes.qdq.shifts import add_shifts
from onnxq.types import Array


def bias_shifts(
    model: ir.Model, plan: QuantPlan, params: ActivationParams, samples: Sequence[Sample]
) -> dict[str, Array]:
    """The mean shift of each op that has a bias: float64 [output channels], by the op's name.

    Each op reads what it reads in the float model.

    Args:
        model: The float model, prepared; not modified.
        plan: Its static plan.
        params: Gives the calibrated scale and zero point of a value by its name.
        samples: To measure on.
    """
    clone = model.clone()
    shifts = add_shifts(clone, plan.again(clone), params)
    if not shifts:
        return {}
    session = runtime.session(clone, memory_flat=True)
    names = [name for shift in shifts.values() for name in shift]
    sums: dict[str, Array] = {}
    elements = dict.fromkeys(shifts, 0)
    for sample in samples:
        found = dict(
            zip(names, runtime.run(session, names, sample.feed, sample.label), strict=True)
        )
        for node, shift in shifts.items():
            if found[shift.elements]:  # a branch may not have been taken
                sums[node] = sums.get(node, 0.0) + found[shift.sums].astype("float64")
                elements[node] += int(found[shift.elements])
    return {node: total * total.size / elements[node] for node, total in sums.items()}
