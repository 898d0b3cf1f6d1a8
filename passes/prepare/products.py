"""Products by matrices of what can be such, so that its weights can have blocks."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.prepare.conv_to_matmul import ConvToMatMul
from onnxq.passes.prepare.split_experts import SplitExperts
from onnxq.recipe import Recipe
from onnxq.targets import Target


def make_products(model: ir.Model, recipe: Recipe, target: Target) -> None:
    """Edit a prepared `model` in place, for preset int4.

    Raises:
        TargetError: The target has no weights in blocks.
    """
    if recipe.preset != "int4":
        return
    support = target.weight_only()
    if recipe.conv_as_matmul:
        ConvToMatMul(recipe, support)(model)
    if not support.stacks:
        SplitExperts(recipe, support)(model)
