"""Which activations to equalize, and how much: decided by what it gains on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxq import observers
from onnxq.calib.feeds import Sample
from onnxq.calib.store import CalibStore
from onnxq.fidelity import op_sqnr
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.transforms.equalize import Equalize, equalized, strength
from onnxq.types import Array

_ALPHAS = (0.75, 1.0, 0.5)  # the one first that is the best of them most often
_GOOD = 32.0  # dB: an op that is so true to its original is left alone
_GAIN = 2.0  # dB: what a division at run time must be worth
_HOPE = 1.0  # dB: an op that gains less with one alpha will not gain enough with another


@dataclass(frozen=True)
class Equalization:
    """What `equalize` did.

    Attributes:
        store: The statistics of the model as it is now.
        sqnr: The fidelity of every op now, in dB.
        alphas: How much was moved, by the name of the op.
    """

    store: CalibStore
    sqnr: dict[str, float]
    alphas: dict[str, float]


def equalize(
    model: ir.Model,
    plan: QuantPlan,
    store: CalibStore,
    sqnr: Mapping[str, float],
    samples: Sequence[Sample],
) -> Equalization:
    """Equalize in place the activations of ops that gain from it.

    Args:
        model: The float model, prepared. What it computes stays the same.
        plan: Its static plan; to be made again if anything was done.
        store: Its statistics.
        sqnr: The fidelity of every planned op, in dB.
        samples: To measure on.
    """
    readers = _candidates(plan, store, sqnr)
    best: dict[str, tuple[float, float, Array]] = {}
    improved = dict(sqnr)
    left = readers
    for alpha in _ALPHAS:
        if not left:
            break
        strengths = {name: _strength(ops, plan, store, name, alpha) for name, ops in left.items()}
        found = _try(model, plan, store, strengths, left, samples)
        hopeful = {}
        for name, ops in left.items():
            gain = min(found[op.node] - sqnr[op.node] for op in ops)
            if gain >= max(_GAIN, best[name][0] if name in best else 0):
                best[name] = (gain, alpha, strengths[name])
                improved |= {op.node: found[op.node] for op in ops}
            if gain >= _HOPE and min(improved[op.node] for op in ops) < _GOOD:
                hopeful[name] = ops
        left = hopeful
    if not best:
        return Equalization(store, improved, {})
    chosen = {name: strength for name, (_, _, strength) in best.items()}
    Equalize(plan, chosen)(model)
    store = _rescaled(store, chosen)
    alphas = {op.node: best[name][1] for name in best for op in readers[name]}
    return Equalization(store, improved, alphas)


def _candidates(
    plan: QuantPlan, store: CalibStore, sqnr: Mapping[str, float]
) -> dict[str, list[PlannedOp]]:
    """The ops that read each activation which may gain."""
    # Between two ops whose kernels hand on integers there is no place to divide.
    integers = {op.output.name for op in plan.ops if op.output is not None}
    readers: dict[str, list[PlannedOp]] = {}
    for op in plan.ops:
        readers.setdefault(plan.inputs[op.node], []).append(op)
    return {
        name: ops
        for name, ops in readers.items()
        if name not in integers
        and min(sqnr[op.node] for op in ops) < _GOOD
        and len({op.operands.channel_axis for op in ops}) == 1
        and all(_channels(plan, op) == _largest(store, name).size for op in ops)
    }


def _channels(plan: QuantPlan, op: PlannedOp) -> int:
    weight = op.operands.weight.const_value
    assert weight is not None
    shape = weight.shape.numpy()
    if op.operands.reduced_axis is not None:
        return shape[op.operands.reduced_axis]
    if op.op_type == "ConvTranspose":
        return shape[0]
    return shape[1] * plan.graph_nodes[op.node].attributes.get_int("group", 1)


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


def _try(
    model: ir.Model,
    plan: QuantPlan,
    store: CalibStore,
    strengths: Mapping[str, Array],
    readers: Mapping[str, Sequence[PlannedOp]],
    samples: Sequence[Sample],
) -> dict[str, float]:
    clone = model.clone()
    Equalize(plan.again(clone), strengths)(clone)
    measured = {op.node for ops in readers.values() for op in ops}
    return op_sqnr(clone, plan, _rescaled(store, strengths).params, samples, measured)


def _rescaled(store: CalibStore, strengths: Mapping[str, Array]) -> CalibStore:
    """The statistics with those of the equalized activations."""
    observer = observers.get(store.observer, store.settings)
    states = {
        equalized(name): observer.rescale(store.states[name], 1 / strength)
        for name, strength in strengths.items()
    }
    return replace(store, states={**store.states, **states})
