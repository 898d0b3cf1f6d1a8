"""Giving accuracy back: the ops that cost the outputs most are left in float, a few of them.

The quantized model runs beside the float one. At the output y of an op, the noise is what came in
and what the op itself adds; `fidelity` tells the latter. So the op's share in the noise of y is

    f = own noise / noise        with the rest, 1 - f, shared as in its input

and a node that joins several values passes on the shares of each by their noise. Followed down to
the outputs, this gives the share of every op in the noise of an output, from one inference for
each sample and not one for each op. The ops of the largest shares are left in float until the noise
is small enough, which is then measured.

The outputs are judged by their worst part: see `onnxq.parts`. What is inside is measured only
when an op is looked for, on the samples that fidelity was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxq import runtime
from onnxq.attribution import Noise, shares
from onnxq.calib.feeds import Sample
from onnxq.cpu import is_meant
from onnxq.outputs import Outputs
from onnxq.parts import Part
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.beside import put_beside
from onnxq.passes.qdq.insert import ActivationParams
from onnxq.progress import progress
from onnxq.recipe import Recovery
from onnxq.types import Array

_GAIN = 1.0  # dB: what a round of ops in float must be worth
_SHARE = 0.02  # of the noise: what an op in float must take away
_RUINED = 6.0  # dB: where accuracy matters more than the size of the file
_ROUNDS = 4


@dataclass(frozen=True)
class Judged:
    """What the outputs of the quantized model are like.

    Attributes:
        parts: The worst first.
        shifts: What was taken from the biases: all that was found, or nothing if that is better.
    """

    parts: list[Part]
    shifts: Mapping[str, Array]

    @property
    def typical(self) -> float:
        """Of a typical sample, in dB, over all parts: what tells two models apart."""
        return sum(part.typical for part in self.parts) / len(self.parts)


@dataclass(frozen=True)
class Recovered:
    """What `recover` did.

    Attributes:
        reasons: The ops to leave in float, each with its reason.
        parts: Of the outputs with them in float, the worst first.
    """

    reasons: dict[str, str]
    parts: list[Part]


def judge(
    outputs: Outputs,
    plan: QuantPlan,
    params: ActivationParams,
    shifts: Mapping[str, Array],
    enough: float,
) -> Judged:
    """Measure the outputs, with the biases corrected unless they are the worse for it.

    Args:
        outputs: Of the float model, to measure beside.
        plan: The static plan of the model.
        params: Gives the calibrated scale and zero point of a value by its name.
        shifts: What to take from the biases of the ops, if that helps.
        enough: For the worst part of the outputs, in dB: where they are that good with the biases
            corrected, they are not measured without.
    """
    corrected = Judged(outputs.parts(plan, params, shifts), shifts)
    if not shifts or not corrected.parts or corrected.parts[0].sqnr >= enough:
        return corrected
    plain = Judged(outputs.parts(plan, params), {})
    return max(plain, corrected, key=lambda judged: judged.typical)


def recover(
    model: ir.Model,
    plan: QuantPlan,
    params: ActivationParams,
    fidelity: Mapping[str, float],
    judged: Judged,
    samples: Sequence[Sample],
    outputs: Outputs,
    limits: Recovery | None,
) -> Recovered:
    """Find the ops to leave in float until the outputs are good enough.

    Args:
        model: The float model, prepared; not modified.
        plan: Its static plan.
        params: Gives the calibrated scale and zero point of a value by its name.
        fidelity: The SQNR of every planned op, in dB.
        judged: The outputs before.
        samples: What fidelity was measured on.
        outputs: Of the float model, to measure beside.
        limits: When to stop; None to do nothing.
    """
    parts = judged.parts
    reasons: dict[str, str] = {}
    if limits is None or not parts:
        return Recovered(reasons, parts)
    weights = _weight_shares(plan)
    most = min(math.ceil(limits.max_float_ops * len(plan.ops)), len(plan.ops) - 1)
    with progress("Recovering accuracy", _ROUNDS) as advance:
        for _ in range(_ROUNDS):
            worst = parts[0]
            if worst.sqnr >= limits.min_sqnr or len(reasons) >= most:
                break
            room = 1.0 if worst.sqnr < _RUINED else limits.max_float_weights
            room -= sum(weights[name] for name in reasons)
            left = plan.leave_float(dict.fromkeys(reasons, ""))
            if all(weights[op.node] > room for op in left.ops):
                break
            noise = inside(model, left, params, samples, judged.shifts)
            found = shares(model, fidelity, noise, worst)
            chosen = _to_leave(
                found,
                weights,
                room,
                most - len(reasons),
                10 ** ((worst.sqnr - limits.min_sqnr) / 10),
            )
            if not chosen:
                break
            left = plan.leave_float(dict.fromkeys([*reasons, *chosen], ""))
            better = outputs.parts(left, params, judged.shifts)
            advance()
            if better[0].sqnr < worst.sqnr + _GAIN:
                break
            reasons |= {name: _reason(found[name], worst, better[0], chosen) for name in chosen}
            parts = better
    return Recovered(reasons, parts)


def _reason(share: float, worst: Part, better: Part, chosen: Sequence[str]) -> str:
    group = "it" if len(chosen) == 1 else f"the {len(chosen)} ops that cost it most"
    return (
        f"quantized it makes {share:.0%} of the noise of {worst.name}: {worst.sqnr:.1f} dB with, "
        f"{better.sqnr:.1f} dB without {group}"
    )


def _to_leave(
    found: Mapping[str, float], weights: Mapping[str, float], room: float, most: int, enough: float
) -> list[str]:
    """The fewest ops without whose noise a share of `enough` is left, those of the largest shares.

    Args:
        found: The share of each op in the noise.
        weights: The share of each op in the weights.
        room: For the weights of the ops chosen.
        most: How many ops at most.
        enough: Of the noise.
    """
    chosen: list[str] = []
    remaining = 1.0
    for name in sorted(found, key=lambda name: -found[name]):
        if remaining <= enough or found[name] < _SHARE or len(chosen) == most:
            break
        if weights[name] <= room:
            chosen.append(name)
            remaining -= found[name]
            room -= weights[name]
    return chosen


def _weight_shares(plan: QuantPlan) -> dict[str, float]:
    """The share of each op in the weights of all of them."""
    tensors = {op.node: op.operands.weight.const_value for op in plan.ops}
    sizes = {name: 0 if tensor is None else tensor.nbytes for name, tensor in tensors.items()}
    total = sum(sizes.values()) or 1
    return {name: size / total for name, size in sizes.items()}


def inside(
    model: ir.Model,
    plan: QuantPlan,
    params: ActivationParams,
    samples: Sequence[Sample],
    shifts: Mapping[str, Array] | None = None,
) -> Noise:
    """The noise inside the quantized model.

    Args:
        model: The float model, prepared; not modified.
        plan: Its static plan.
        params: Gives the calibrated scale and zero point of a value by its name.
        samples: To measure on.
        shifts: What is taken from the biases.
    """
    clone = model.clone()
    beside = put_beside(clone, plan.again(clone), params, shifts)
    fuse_qdq = is_meant(plan.target, plan.recipe.preset)
    session = runtime.session(clone, memory_flat=True, fuse_qdq=fuse_qdq)
    names = [value.name or "" for value in clone.graph.outputs]
    noise = Noise(beside)
    for sample in samples:
        found = runtime.run(session, names, sample.feed, sample.label)
        noise.add(dict(zip(names, found, strict=True)))
    return noise
