"""What has no Q/DQ nodes, in the form that a target runs, one file each.

The name of a form is the name of its module, which defines

    LOWERING: type[Lowering]
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxq import registry
from onnxq.errors import TargetError
from onnxq.passes import weights
from onnxq.passes.base import GraphPass
from onnxq.passes.casts import uncast
from onnxq.passes.edit import Editor
from onnxq.passes.experts import EXPERTS
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.sharing import by_stored_weight, common_moment
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import Array

__all__ = ["LowerOps", "opset"]


class LowerOps(GraphPass):
    """Replace the weight-only and dynamic ops of a plan by the form that its target runs.

    A weight that several nodes read with one spec is quantized and stored once.

    Args:
        plan: What to lower.
        moments: The sum of x x^T of each of `plan.second_moments()`.
    """

    def __init__(self, plan: QuantPlan, moments: Mapping[str, Array] | None = None) -> None:
        super().__init__()
        self._plan = plan
        self._moments = moments or {}

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        ops = [op for op in self._plan.ops if op.scheme != "static"]
        editor = Editor(model)
        stored: dict[LazyWeight, list[ir.Value]] = {}
        forms = {name: _load(name)(editor, stored) for name in {self._form(op) for op in ops}}
        lazy_weights: dict[str, LazyWeight] = {}
        for group in by_stored_weight(ops):
            lazy_weights |= dict.fromkeys((op.node for op in group), self._lazy(group))
        for op in ops:
            forms[self._form(op)].lower(self._plan.graph_nodes[op.node], op, lazy_weights[op.node])
        return len(ops)

    def _lazy(self, ops: list[PlannedOp]) -> LazyWeight:
        """The one weight of all of `ops`, which serves what all of them are multiplied by."""
        first, source = ops[0], ops[0].operands.weight.const_value
        assert source is not None
        moment = common_moment(ops, self._plan.inputs, self._moments)
        return LazyWeight(
            uncast(source),
            first.weight,
            weights.get(first.algorithm, moment),
            by_output=not weights.needs_data(first.algorithm),
        )

    def _form(self, op: PlannedOp) -> str:
        if op.scheme == "weight-only":
            support = self._plan.target.weight_only()
            if op.operands.kind == EXPERTS:
                assert isinstance(support.experts, str)
                return support.experts
            if op.is_table:
                assert isinstance(support.table_lowering, str)
                return support.table_lowering
            codebook = support.codebooks.get(op.weight.format)
            return support.lowering if codebook is None else codebook.lowering
        form = self._plan.target.dynamic().lowerings[op.op_type]
        assert isinstance(form, str)
        return form


def opset(name: str) -> int:
    """The lowest opset that the form called `name` can be written in."""
    return _load(name).opset


def _load(name: str) -> type[Lowering]:
    lowering: type[Lowering] = registry.load("onnxq.passes.lower", name, "LOWERING", TargetError)
    return lowering
