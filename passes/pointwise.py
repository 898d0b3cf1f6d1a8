"""Which Convs can be a MatMul with weights in blocks: those of kernel size 1, where asked for.

y[b, n, p] = sum_k w[n, k] x[b, k, p] + c[n]        for each pixel p
"""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxq.passes.choices import choices
from onnxq.passes.heads import is_head
from onnxq.passes.names import names_of
from onnxq.passes.qdq.rules.base import find_weight, shape
from onnxq.recipe import Recipe
from onnxq.targets import No, WeightOnlySupport

_PRODUCTS_ONLY = "blocks of weights are for MatMul"


def refusal(node: ir.Node, recipe: Recipe, support: WeightOnlySupport) -> No | None:
    """Why the Conv `node` stays one, in float; None if it can be a product with weights in blocks.

    Args:
        node: A Conv.
        recipe: What is asked for.
        support: What the target runs.
    """
    names = names_of(node)
    if (pattern := recipe.float_pattern(*names)) is not None:
        return No(f"excluded by '{pattern}'")
    weight = find_weight(node.inputs[1])
    if isinstance(weight, No):
        return weight
    _, inputs, *kernel = shape(weight)
    if (other := _other_than_a_product(node, kernel)) is not None:
        return No(f"{_PRODUCTS_ONLY}, and {other} is none")
    if not recipe.conv_as_matmul:
        return No(
            f"{_PRODUCTS_ONLY}, which a Conv with a kernel of size 1 becomes with "
            "--conv-as-matmul (conv_as_matmul in a recipe)"
        )
    if not support.shared_weights and len(weight.value.uses()) > 1:
        return No("other nodes read its weight too, which the target then dequantizes in float")
    asked = recipe.weights_of(*names, role=recipe.head if is_head(node) else None)
    found = choices(asked, inputs, 1, "float32", support)
    return found if isinstance(found, No) else None


def why_conv(node: ir.Node, recipe: Recipe, support: WeightOnlySupport) -> No:
    """Why the Conv `node` still is one."""
    refused = refusal(node, recipe, support)
    return No("it has not been made a MatMul yet") if refused is None else refused


def _other_than_a_product(node: ir.Node, kernel: list[int]) -> str | None:
    """What a Conv is that no product of matrices is, in words."""
    if math.prod(kernel) > 1:
        return f"a Conv with a kernel of {'x'.join(map(str, kernel))}"
    if node.attributes.get_int("group", 1) > 1:
        return "a grouped Conv"
    if any(step > 1 for step in node.attributes.get_ints("strides", [1])):
        return "a Conv that skips pixels (strides)"
    if any(node.attributes.get_ints("pads", [0])):
        return "a Conv that adds pixels (pads)"
    return None
