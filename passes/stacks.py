"""MatMuls by a constant stack of matrices, [E, K, N], as exporters write the experts of a layer.

    y[.., e, m, n] = sum_k x[.., e, m, k] w[e, k, n]

A target dequantizes the whole stack in its product, or runs a product for each expert.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.choices import choices
from onnxq.passes.edit import constant
from onnxq.passes.names import names_of
from onnxq.passes.qdq.rules.base import Operands
from onnxq.passes.value_types import FLOATS
from onnxq.recipe import Recipe
from onnxq.targets import No, WeightOnlySupport


def stack_of(node: ir.Node) -> tuple[int, ...] | None:
    """The shape [E, K, N] of the stack that `node` multiplies by; None if there is none."""
    tensor = constant(node.inputs[1]) if node.op_type == "MatMul" and not node.domain else None
    if tensor is None or tensor.dtype not in FLOATS or len(tensor.shape.numpy()) != 3:
        return None
    return tuple(tensor.shape.numpy())


def describe_stack(node: ir.Node) -> Operands | None:
    """The operands of a MatMul by a stack as a whole; None if `node` is none."""
    weight = node.inputs[1] if stack_of(node) else None
    if weight is None:
        return None
    return Operands(
        kind="matmul",
        activation=0,
        weight_index=1,
        weight=weight,
        transposed=False,
        output_axis=2,
        reduced_axis=1,
        bias_index=None,
        channel_axis=-1,
    )


def split_refusal(node: ir.Node, recipe: Recipe, support: WeightOnlySupport) -> No | None:
    """Why a MatMul by a stack does not become a product for each expert; None if it does.

    Args:
        node: Such a MatMul.
        recipe: What is asked for.
        support: What the target runs.
    """
    names, stack = names_of(node), stack_of(node)
    if (pattern := recipe.float_pattern(*names)) is not None:
        return No(f"excluded by '{pattern}'")
    assert stack is not None
    if expert_axis(node.inputs[0], stack[0]) is None:
        return No(
            f"it multiplies by {stack[0]} matrices, and how many its activation has is not known"
        )
    found = choices(recipe.weights_of(*names), stack[1], 0, "float32", support)
    return found if isinstance(found, No) else None


def why_whole(node: ir.Node, recipe: Recipe, support: WeightOnlySupport) -> No:
    """Why a MatMul by a stack still is one where the target needs a product for each expert."""
    refused = split_refusal(node, recipe, support)
    return No("its experts have no products of their own yet") if refused is None else refused


def expert_axis(activation: ir.Value | None, experts: int) -> int | None:
    """Along which axis `activation` has one matrix per expert, counted from the end.

    Returns:
        -3; 0 if all experts read the same matrices; None if it is not known.
    """
    if activation is None or activation.shape is None:
        return None
    if len(activation.shape) < 3 or activation.shape[-3] == 1:
        return 0
    return -3 if activation.shape[-3] == experts else None
