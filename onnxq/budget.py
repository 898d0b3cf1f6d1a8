"""A budget of bytes, spent where it does most good: the bits and block size of each weight.

The damage of each choice is that of `onnxq.passes.weights._damage`: the noise of the op's output
beside its signal. It is the error of the weight beside the weight where no data tells what that is
multiplied by, and where it is larger: a few huge inputs, as transformers have, hide what becomes of
the others. What the head of a model adds is in the outputs as it is; the noise of each of the many
ops before it is diluted by the signal of the others. On SmolLM2, with 211 products, the KL
divergence for one unit of damage was measured to be 40 times as large for the head as for the
median of the others, and of much the same size among those. So damages are added up with weights

    1 for a head        min(1, 5 / number of ops) for any other

and `onnxq.knapsack` takes the choices of least sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxq.bytesize import in_bytes
from onnxq.errors import NotFiniteError, RecipeError
from onnxq.knapsack import choose
from onnxq.onnxfile import file_bytes, release
from onnxq.passes.choices import stored_bytes
from onnxq.passes.heads import is_head
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.rewrite import rewrite
from onnxq.passes.weights._damage import damages
from onnxq.passes.weights._lazy import not_finite
from onnxq.progress import progress
from onnxq.types import Array, PerBlock, QuantSpec

_METADATA = 8192  # bytes: the recipe as it is written into the model
_METADATA_OF_OP = 64
_UNDILUTED = 5  # ops whose noise together would count as much as that of one head


@dataclass(frozen=True)
class _Matrix:
    """One stored weight and the ops that it is of."""

    ops: tuple[PlannedOp, ...]

    @property
    def tensor(self) -> ir.TensorProtocol:
        tensor = self.ops[0].operands.weight.const_value
        assert tensor is not None
        return tensor

    @property
    def choices(self) -> Sequence[QuantSpec]:
        return self.ops[0].choices

    @property
    def size(self) -> int:
        return math.prod(self.tensor.shape.numpy())

    def weight(self, plan: QuantPlan) -> float:
        """What its damage counts."""
        if any(is_head(plan.graph_nodes[op.node]) for op in self.ops):
            return 1.0
        return min(1.0, _UNDILUTED / len(plan.ops))

    def bytes(self, spec: QuantSpec) -> int:
        assert isinstance(spec.granularity, PerBlock)
        rows = self.tensor.shape.numpy()[spec.granularity.axis]
        return stored_bytes(spec, rows, self.size // rows)

    def damages(self, plan: QuantPlan, moments: Mapping[str, Array]) -> list[float]:
        """Of each choice, for all ops together."""
        if len(self.choices) == 1:
            return [0.0]
        try:
            weight = self.tensor.numpy()
            inputs = [moments.get(plan.inputs[op.node]) for op in self.ops]
            alone = damages(weight, self.choices, None)
            found = [alone for moment in inputs if moment is None]
            found += [
                list(map(max, damages(weight, self.choices, moment), alone))
                for moment in inputs
                if moment is not None
            ]
        except NotFiniteError as failure:
            raise not_finite(self.tensor) from failure
        finally:
            release(self.tensor)
        return [math.fsum(each) for each in zip(*found, strict=True)]


def spend(model: ir.Model, plan: QuantPlan, moments: Mapping[str, Array]) -> QuantPlan:
    """Choose the spec of each weight of bits "auto".

    Args:
        model: As planned; not modified.
        plan: Its plan, which stays as it is if its recipe has no budget.
        moments: The second moments of the activations that are known, by name.

    Returns:
        The plan with those specs.

    Raises:
        RecipeError: Not even the choices of the fewest bytes meet the budget.
        ModelError: A weight holds NaN or infinity.
    """
    if not plan.recipe.has_budget or not plan.ops:
        return plan
    matrices = _matrices(plan)
    budget = _least(matrices) + _room(model, plan)
    found = []
    with progress("Choosing bits", len(matrices)) as advance:
        for matrix in matrices:
            found.append(matrix.damages(plan, moments))
            advance()
    options = [
        [
            (matrix.bytes(spec), damage * matrix.weight(plan))
            for spec, damage in zip(matrix.choices, each, strict=True)
        ]
        for matrix, each in zip(matrices, found, strict=True)
    ]
    specs: dict[str, QuantSpec] = {}
    for matrix, index in zip(matrices, choose(options, budget), strict=True):
        specs |= dict.fromkeys((op.node for op in matrix.ops), matrix.choices[index])
    return plan.with_weights(specs)


def require_reachable(model: ir.Model, plan: QuantPlan) -> None:
    """Fail before any data is read if a plan's budget is too small.

    Raises:
        RecipeError: Not even the choices of the fewest bytes meet it.
    """
    if plan.recipe.has_budget:
        _room(model, plan)


def require_met(model: ir.Model, plan: QuantPlan) -> None:
    """Fail if a finished model would be larger than its recipe allows.

    Raises:
        RecipeError: It is: a defect of onnxq.
    """
    budget = in_bytes(plan.recipe.size_budget, "size budget")
    if budget is not None and file_bytes(model) > budget:
        raise RecipeError(
            f"The file would take {file_bytes(model)} bytes; the budget is {budget}.",
            "Lower the budget a little, and report this.",
        )


def _matrices(plan: QuantPlan) -> list[_Matrix]:
    shared: dict[object, list[PlannedOp]] = {}
    for op in plan.ops:
        shared.setdefault((op.operands.weight, op.choices, op.algorithm), []).append(op)
    return [_Matrix(tuple(ops)) for ops in shared.values()]


def _room(model: ir.Model, plan: QuantPlan) -> float:
    """The bytes that the budget leaves beyond the choices of the fewest bytes."""
    mean, size = plan.recipe.bits_per_weight, in_bytes(plan.recipe.size_budget, "size budget")
    if mean is not None:
        return _room_for_mean(_matrices(plan), mean)
    assert size is not None
    clone = model.clone()
    again = plan.again(clone)
    without_data = tuple(replace(op, algorithm="auto") for op in again.ops)  # of the same size
    rewrite(clone, replace(again, ops=without_data))
    smallest = file_bytes(clone) + _METADATA + _METADATA_OF_OP * len(plan.ops)
    if smallest > size:
        raise RecipeError(
            f"The file takes at least {smallest / 1e6:.2f} MB; the budget is {size / 1e6:.2f} MB.",
            f"Raise size_budget to {math.ceil(smallest / 1e4) / 100:.2f}MB or more, or keep less "
            "in float: --plan with bits_per_weight tells what is, and why.",
        )
    return size - smallest


def _least(matrices: Sequence[_Matrix]) -> int:
    return sum(matrix.bytes(matrix.choices[0]) for matrix in matrices)


def _room_for_mean(matrices: Sequence[_Matrix], mean: float) -> float:
    weights = sum(matrix.size for matrix in matrices)
    least = 8 * _least(matrices) / weights
    if least > mean:
        raise RecipeError(
            f"At least {least:.3f} bits per weight are needed, scales and zero points included; "
            f"the budget is {mean:g}.",
            "Raise bits_per_weight.",
        )
    return (mean - least) * weights / 8
