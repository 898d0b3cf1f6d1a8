"""Write a plan without Q/DQ into the model: the type of activations, and the forms of ops."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxq.minimum_runtime import PRODUCT_BIAS
from onnxq.passes.lower import LowerOps
from onnxq.passes.plan import QuantPlan
from onnxq.passes.remove_unused import RemoveUnused
from onnxq.passes.separate_bias import SeparateBias
from onnxq.passes.transforms.set_activation_type import SetActivationType
from onnxq.types import Array


def rewrite(
    model: ir.Model, plan: QuantPlan, moments: Mapping[str, Array] | None = None
) -> dict[str, str]:
    """Edit `model` in place.

    Args:
        model: As planned.
        plan: Its plan.
        moments: As for `LowerOps`.

    Returns:
        Why a node computes in float32 although activations become narrower, by its name.

    Raises:
        ModelError: The type of activations cannot be changed.
    """
    wide = set_activation_type(model, plan)
    LowerOps(plan, moments)(model)
    oldest = plan.target.min_runtime
    if oldest is not None and oldest < PRODUCT_BIAS:
        SeparateBias()(model)
    RemoveUnused()(model)
    return wide


def set_activation_type(model: ir.Model, plan: QuantPlan) -> dict[str, str]:
    """Give the activations of `model` the type that its plan has; as `rewrite`, but for the ops."""
    if plan.activation_type is None:
        return {}
    change = SetActivationType(
        plan.activation_type,
        {op.node for op in plan.ops},
        plan.target.weight_only().wide_attention,
    )
    change(model)
    return change.kept
