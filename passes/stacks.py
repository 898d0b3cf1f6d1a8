"""MatMuls by a constant stack of matrices, [E, K, N], as exporters write the experts of a layer.

    y[.., e, m, n] = sum_k x[.., e, m, k] w[e, k, n]

A target dequantizes the whole stack in its product, or runs a product for each expert.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.passes.choices import choices
from onnxq.passes.edit import constant
from onnxq.passes.names import names_of
from onnxq.passes.qdq.rules.base import Operands
from onnxq.passes.value_types import FLOATS
from onnxq.recipe import Recipe
from onnxq.targets import No, WeightOnlySupport

_MATRICES = [0, 2, 1]  # the permutation that transposes each matrix


@dataclass(frozen=True)
class Stack:
    """A constant stack of matrices that a MatMul reads.

    Attributes:
        value: The initializer.
        transposed: Whether it is [E, N, K], and read through a Transpose of its matrices.
    """

    value: ir.Value
    transposed: bool

    @property
    def tensor(self) -> ir.TensorProtocol:
        """What the initializer holds."""
        tensor = self.value.const_value
        assert tensor is not None
        return tensor

    @property
    def experts(self) -> int:
        """How many matrices there are."""
        return int(self.tensor.shape.numpy()[0])

    @property
    def reduced_axis(self) -> int:
        """The axis that is summed over."""
        return 2 if self.transposed else 1


def stack_of(node: ir.Node) -> Stack | None:
    """The stack that `node` multiplies by; None if there is none."""
    if node.op_type != "MatMul" or node.domain:
        return None
    value, transposed = node.inputs[1], False
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose" and not producer.domain:
        transposed = [*producer.attributes.get_ints("perm", [])] == _MATRICES
        value = producer.inputs[0] if transposed else value
    tensor = constant(value)
    if value is None or tensor is None or tensor.dtype not in FLOATS or not tensor.size:
        return None
    return Stack(value, transposed) if len(tensor.shape.numpy()) == 3 else None


def describe_stack(node: ir.Node) -> Operands | None:
    """The operands of a MatMul by a stack as a whole; None if `node` is none."""
    stack = stack_of(node)
    if stack is None:
        return None
    return Operands(
        kind="matmul",
        activation=0,
        weight_index=1,
        weight=stack.value,
        transposed=stack.transposed,
        output_axis=3 - stack.reduced_axis,
        reduced_axis=stack.reduced_axis,
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
    if expert_axis(node.inputs[0], stack.experts) is None:
        return No(
            f"it multiplies by {stack.experts} matrices, and how many its activation has is not "
            "known"
        )
    rows = stack.tensor.shape.numpy()[stack.reduced_axis]
    found = choices(recipe.weights_of(*names), rows, 0, "float32", support)
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
