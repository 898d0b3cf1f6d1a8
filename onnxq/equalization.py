"""Which activations to equalize, and how much: decided by what it gains on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxq import observers
from onnxq.calib.feeds import Sample
from onnxq.calib.store import CalibStore
from onnxq.fidelity import Fidelity, measure_ops
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.transforms.absorb import Absorption
from onnxq.passes.transforms.equalize import (
    Equalize,
    absorptions,
    channels,
    equalized,
    strength,
)
from onnxq.types import Array

_ALPHAS = (0.75, 1.0, 0.5)  # the one first that is the best of them most often
_GOOD = 32.0  # dB: an op that is so true to its original is left alone
_GAIN = 2.0  # dB: what a division at run time must be worth
_HOPE = 0.5  # of that: an op that gains less with one alpha will not gain enough with another
_FREE_GAIN = 0.5  # dB: one that costs nothing at run time
_LOSS = 1.0  # dB: what the op that takes in the division may lose


@dataclass(frozen=True)
class Equalization:
    """What `equalize` did.

    Attributes:
        store: The statistics of the model as it is now.
        fidelity: Of every op now.
        alphas: How much was moved, by the name of the op.
    """

    store: CalibStore
    fidelity: Fidelity
    alphas: dict[str, float]


def equalize(
    model: ir.Model,
    plan: QuantPlan,
    store: CalibStore,
    fidelity: Fidelity,
    samples: Sequence[Sample],
) -> Equalization:
    """Equalize in place the activations of ops that gain from it.

    Args:
        model: The float model, prepared. What it computes stays the same.
        plan: Its static plan; to be made again if anything was done.
        store: Its statistics.
        fidelity: Of every planned op.
        samples: To measure on.
    """
    sqnr = fidelity.sqnr
    absorbed = absorptions(plan)
    readers = _candidates(plan, store, sqnr, absorbed)
    best: dict[str, tuple[float, float, Array]] = {}
    improved = fidelity
    left = readers
    for alpha in _ALPHAS:
        if not left:
            break
        strengths = {name: _strength(ops, plan, store, name, alpha) for name, ops in left.items()}
        found = _try(model, plan, _rescaled(store, strengths, absorbed), strengths, samples)
        hopeful = {}
        for name, ops in left.items():
            gain = min(found.sqnr[op.node] - sqnr[op.node] for op in ops)
            makers = _makers(plan, absorbed.get(name))
            if any(found.sqnr[maker] < sqnr[maker] - _LOSS for maker in makers):
                continue
            least = _FREE_GAIN if name in absorbed else _GAIN
            if gain >= max(least, best[name][0] if name in best else 0):
                best[name] = (gain, alpha, strengths[name])
                improved = improved.updated(found, {*makers, *(op.node for op in ops)})
            if gain >= _HOPE * least and min(improved.sqnr[op.node] for op in ops) < _GOOD:
                hopeful[name] = ops
        left = hopeful
    if not best:
        return Equalization(store, improved, {})
    chosen = {name: strength for name, (_, _, strength) in best.items()}
    Equalize(plan, chosen)(model)
    store = _rescaled(store, chosen, absorbed)
    changed = {op.node for name in best for op in readers[name]}
    for name in best:
        changed |= _makers(plan, absorbed.get(name))
    # What makes an activation was measured dividing it by what was tried, not by what was chosen.
    unsure = {maker for name in readers for maker in _makers(plan, absorbed.get(name))} & changed
    if unsure:
        found = measure_ops(model, plan, store.params, samples, unsure)
        improved = improved.updated(found, unsure)
    alphas = {op.node: best[name][1] for name in best for op in readers[name]}
    return Equalization(store, improved, alphas)


def _candidates(
    plan: QuantPlan,
    store: CalibStore,
    sqnr: Mapping[str, float],
    absorbed: Mapping[str, Absorption],
) -> dict[str, list[PlannedOp]]:
    """The ops that read each activation which may gain."""
    # Between two ops whose kernels hand on integers there is no place to divide at run time.
    integers = {op.output.name for op in plan.ops if op.output is not None}
    readers: dict[str, list[PlannedOp]] = {}
    for op in plan.products:
        readers.setdefault(plan.inputs[op.node], []).append(op)
    return {
        name: ops
        for name, ops in readers.items()
        if (name not in integers or name in absorbed)
        and not any(op.tied for op in ops)
        and min(sqnr[op.node] for op in ops) < _GOOD
        and len({op.operands.channel_axis for op in ops}) == 1
        and all(channels(op, plan.graph_nodes[op.node]) == _largest(store, name).size for op in ops)
    }


def _largest(store: CalibStore, name: str) -> Array:
    """max|x_j| of each channel; empty if nothing was seen."""
    state = store.states[name]
    return np.maximum(np.abs(state["min"]), np.abs(state["max"]))


def _strength(
    ops: Sequence[PlannedOp], plan: QuantPlan, store: CalibStore, name: str, alpha: float
) -> Array:
    """One s for all ops that read the activation: the geometric mean of what each would have."""
    logs = [
        np.log(strength(op, plan.graph_nodes[op.node], _largest(store, name), alpha)) for op in ops
    ]
    return np.asarray(np.exp(np.mean(logs, axis=0)))


def _makers(plan: QuantPlan, absorption: Absorption | None) -> set[str]:
    """The planned ops that take in the division."""
    if absorption is None:
        return set()
    return {node.name or "" for node, _, _ in absorption.constants} & {op.node for op in plan.ops}


def _try(
    model: ir.Model,
    plan: QuantPlan,
    store: CalibStore,
    strengths: Mapping[str, Array],
    samples: Sequence[Sample],
) -> Fidelity:
    clone = model.clone()
    Equalize(plan.again(clone), strengths)(clone)
    absorbed = absorptions(plan)
    measured = {op.node for op in plan.products if plan.inputs[op.node] in strengths}
    for name in strengths:
        measured |= _makers(plan, absorbed.get(name))
    return measure_ops(clone, plan, store.params, samples, measured)


def _rescaled(
    store: CalibStore, strengths: Mapping[str, Array], absorbed: Mapping[str, Absorption]
) -> CalibStore:
    """The statistics with those of the equalized activations."""
    observer = observers.get(store.observer, store.settings)
    states = dict(store.states)
    for name, factors in strengths.items():
        if name in absorbed:
            for value in absorbed[name].values:
                if value.name in states:
                    states[value.name] = observer.rescale(states[value.name], 1 / factors)
        else:
            states[equalized(name)] = observer.rescale(states[name], 1 / factors)
    return replace(store, states=states)
