"""What has no Q/DQ nodes, in the form that a target runs, one file each.

The name of a form is the name of its module, which defines

    LOWERING: type[Lowering]
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq import registry
from onnxq.errors import TargetError
from onnxq.passes import weights
from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.weights._lazy import LazyWeight

__all__ = ["LowerOps", "opset"]


class LowerOps(GraphPass):
    """Replace the weight-only and dynamic ops of a plan by the form that its target runs.

    A weight that several nodes read with one spec is quantized and stored once.
    """

    def __init__(self, plan: QuantPlan) -> None:
        super().__init__()
        self._plan = plan

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        ops = [op for op in self._plan.ops if op.scheme != "static"]
        editor = Editor(model)
        forms = {name: _load(name)(editor) for name in {self._form(op) for op in ops}}
        lazy_weights: dict[object, LazyWeight] = {}
        for op in ops:
            value = op.operands.weight
            assert value.const_value is not None
            key = (value, op.weight, op.algorithm)
            if key not in lazy_weights:
                lazy_weights[key] = LazyWeight(
                    value.const_value, op.weight, weights.get(op.algorithm)
                )
            forms[self._form(op)].lower(self._plan.graph_nodes[op.node], op, lazy_weights[key])
        return len(ops)

    def _form(self, op: PlannedOp) -> str:
        if op.scheme == "weight-only":
            return self._plan.target.weight_only().lowering
        form = self._plan.target.dynamic().lowerings[op.op_type]
        assert isinstance(form, str)
        return form


def opset(name: str) -> int:
    """The lowest opset that the form called `name` can be written in."""
    return _load(name).opset


def _load(name: str) -> type[Lowering]:
    lowering: type[Lowering] = registry.load("onnxq.passes.lower", name, "LOWERING", TargetError)
    return lowering
