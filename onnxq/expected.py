"""What is left of each op's output when its weight is quantized, from the moments of its input.

    SQNR = 10 log10(tr(W^T H W) / tr((W - Q)^T H (W - Q)))        [dB]

with Q made by the op's own algorithm, of some columns: see `onnxq.passes.weights._damage`. It tells
which op was harmed before anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnxq.errors import NotFiniteError
from onnxq.onnxfile import release
from onnxq.passes import weights
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.sharing import by_stored_weight, common_moment
from onnxq.passes.weights._damage import damages
from onnxq.passes.weights._lazy import not_finite
from onnxq.progress import progress
from onnxq.types import Array


def expected_sqnr(plan: QuantPlan, moments: Mapping[str, Array]) -> dict[str, float]:
    """The SQNR of each op whose input's second moment is known, in dB, by the op's name.

    Raises:
        ModelError: A weight holds NaN or infinity.
    """
    known = [
        op for op in plan.ops if plan.inputs.get(op.node) in moments and not op.operands.second
    ]
    shared = by_stored_weight(known)
    found: dict[str, float] = {}
    with progress("Estimating accuracy", len(shared)) as advance:
        for ops in shared:
            found |= _sqnr(ops, plan.inputs, moments)
            advance()
    return found


def _sqnr(
    ops: list[PlannedOp], inputs: Mapping[str, str], moments: Mapping[str, Array]
) -> dict[str, float]:
    """Of the ops that share one weight."""
    tensor = ops[0].operands.weight.const_value
    assert tensor is not None
    names = dict.fromkeys(inputs[op.node] for op in ops)
    algorithm = weights.get(ops[0].algorithm, common_moment(ops, inputs, moments))
    try:
        noise = {
            name: damages(tensor.numpy(), [ops[0].weight], moments[name], algorithm)[0]
            for name in names
        }
    except NotFiniteError as failure:
        raise not_finite(tensor) from failure
    finally:
        release(tensor)
    return {op.node: in_decibels(noise[inputs[op.node]]) for op in ops}


def in_decibels(damage: float) -> float:
    """Signal beside noise, from noise beside signal."""
    return -10 * math.log10(damage) if damage > 0 else math.inf
