"""Whether activations are clipped: judged by the outputs of the model.

A range that clips the rare large values of a tensor rounds the others less: the error of the tensor
falls, and that of the op which reads it. The outputs may suffer all the same, because rare large
values are what they are made of. So where the outputs are not good enough, the observer proposes
ranges that clip, from the same statistics, and one more measurement of the outputs decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxq.calib.feeds import Sample
from onnxq.calib.store import CalibStore
from onnxq.fidelity import Fidelity, measure_ops
from onnxq.outputs import Outputs
from onnxq.passes.plan import QuantPlan
from onnxq.recovery import Judged

_OBSERVER = "auto"  # the one that leaves the choice
_NEVER, _WHERE_IT_PAYS = 0.0, 0.8  # its shares
_GAIN = 1.0  # dB: what clipping must be worth for a typical sample, over the parts of the outputs
_LOSS = 1.0  # dB: what it may cost the worst part over all samples, which a few decide


@dataclass(frozen=True)
class Choice:
    """What `choose` found.

    Attributes:
        store: The same statistics, with the ranges that are chosen.
        fidelity: Of every op with them.
        judged: The outputs with them.
        why: In words.
    """

    store: CalibStore
    fidelity: Fidelity
    judged: Judged
    why: str


def unclipped(store: CalibStore) -> CalibStore:
    """The same statistics, whose ranges cover every value if the observer leaves the choice."""
    return _with_share(store, _NEVER) if store.observer == _OBSERVER else store


def choose(
    model: ir.Model,
    plan: QuantPlan,
    store: CalibStore,
    fidelity: Fidelity,
    judged: Judged,
    samples: Sequence[Sample],
    outputs: Outputs,
    enough: float,
) -> Choice:
    """Clip where that pays, if a typical sample is better for it and the worst part no worse.

    Args:
        model: The float model, prepared; not modified.
        plan: Its static plan.
        store: Its statistics, as `unclipped` leaves them.
        fidelity: Of every op without clipping.
        judged: The outputs without clipping.
        samples: To measure the fidelity of ops on.
        outputs: Of the float model, to measure beside.
        enough: For the worst part of the outputs, in dB: nothing is clipped where they are that
            good.
    """
    if store.observer != _OBSERVER:
        return Choice(store, fidelity, judged, f"as the observer {store.observer} says")
    if not judged.parts or judged.parts[0].sqnr >= enough:
        return Choice(store, fidelity, judged, "nothing: the outputs are good enough without")
    clipping = _with_share(store, _WHERE_IT_PAYS)
    changed = _changed(plan, store, clipping)
    if not changed:
        return Choice(store, fidelity, judged, "nothing: no tensor's error would fall by it")
    own = measure_ops(model, plan, clipping.params, samples, changed)
    shifts = {**judged.shifts, **own.shifts} if judged.shifts else {}
    found = Judged(outputs.parts(plan, clipping.params, shifts), shifts)
    pays = (
        found.typical >= judged.typical + _GAIN
        and found.parts[0].sqnr >= judged.parts[0].sqnr - _LOSS
    )
    numbers = (
        f"{found.typical:.1f} dB for a typical sample with clipping, {judged.typical:.1f} dB "
        "without; "
        f"{found.parts[0].sqnr:.1f} and {judged.parts[0].sqnr:.1f} dB at the worst"
    )
    if not pays:
        return Choice(store, fidelity, judged, f"nothing: the outputs have {numbers}")
    why = f"where a tensor's error falls by it: the outputs have {numbers}"
    return Choice(clipping, fidelity.updated(own, changed), found, why)


def _with_share(store: CalibStore, share: float) -> CalibStore:
    return replace(store, settings={"share": share})


def _changed(plan: QuantPlan, a: CalibStore, b: CalibStore) -> set[str]:
    """The ops of the plan to which the two sets of statistics give different scales."""
    return {
        op.node
        for op in plan.ops
        if op.activation is not None
        for name in (plan.inputs[op.node], None if op.output is None else op.output.name)
        if name is not None
        and a.params(name, op.activation).scale != b.params(name, op.activation).scale
    }
