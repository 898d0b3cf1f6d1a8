"""Which op makes how much of the noise of an output: see `onnxq.recovery` for the algebra."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxq.fidelity import sqnr
from onnxq.parts import Part
from onnxq.passes.qdq.beside import Beside
from onnxq.passes.sources import sources
from onnxq.types import Array

_PRODUCTS = ("Mul", "Div", "MatMul")  # whose result is off by the sum of what is off relatively


class Noise:
    """How far values of the quantized model are off, summed up over samples.

    Args:
        beside: What the outputs of the model mean.
    """

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        every = [sums for several in beside.sites.values() for sums in several]
        self._totals = dict.fromkeys(
            (name for sums in (*every, *beside.values.values()) for name in sums), 0.0
        )

    def add(self, found: Mapping[str, Array]) -> None:
        """Take in the outputs of the model for one sample."""
        for name in self._totals:
            self._totals[name] += float(found[name].sum())

    def sqnr(self, node: str) -> float | None:
        """At the output of a planned op, in dB; None if it was not measured."""
        several = self._beside.sites.get(node)
        return None if several is None else min(sqnr(each, self._totals) for each in several)

    def weight(self, value: ir.Value, *, relative: bool) -> float:
        """The noise of a value, perhaps beside its square; 0 if it was not measured."""
        sums = self._beside.values.get(value.name or "")
        if sums is None:
            return 0.0
        squares = self._totals[sums.squares] if relative else 1.0
        return self._totals[sums.noise] / squares if squares else 0.0


def shares(
    model: ir.Model, fidelity: Mapping[str, float], noise: Noise, part: Part
) -> dict[str, float]:
    """The share of each planned op in the noise of a part of the outputs.

    Args:
        model: The float model.
        fidelity: The SQNR of each planned op by itself, in dB.
        noise: Of the quantized model.
        part: Of the outputs.
    """
    ops = list(fidelity)
    index = {name: i for i, name in enumerate(ops)}
    reached: dict[ir.Value, Array] = {}
    for node in model.graph:
        mixed = _mix(node, reached, noise, len(ops))
        name = node.name or ""
        seen = noise.sqnr(name) if name in index else None
        if seen is not None:
            own = _own_share(fidelity[name], seen)
            mixed = (1 - own) * mixed
            mixed[index[name]] += own
        reached |= dict.fromkeys(node.outputs, mixed)
    output = next(value for value in model.graph.outputs if value.name == part.output)
    found = [output] if part.axis is None else (sources(output, part.axis, part.channels))
    vectors = [reached[value] for value in found if value in reached]
    total = np.mean(vectors, axis=0) if vectors else np.zeros(len(ops))
    return {name: float(total[index[name]]) for name in ops}


def _own_share(alone: float, seen: float) -> float:
    """Own noise / noise, from both SQNRs."""
    return min(1.0, 10 ** ((seen - alone) / 10)) if math.isfinite(seen) else 0.0


def _mix(node: ir.Node, reached: Mapping[ir.Value, Array], noise: Noise, size: int) -> Array:
    """The shares in what `node` reads."""
    read = [v for v in dict.fromkeys(node.inputs) if v is not None and v in reached]
    if not read:
        return np.zeros(size)
    weights = np.array([noise.weight(value, relative=node.op_type in _PRODUCTS) for value in read])
    if not weights.sum():
        weights = np.ones(len(read))
    vectors = np.stack([reached[value] for value in read])
    return np.asarray(weights @ vectors / weights.sum())
