"""com.microsoft.MoE: all experts of a layer in one op, with a stack of weights for each product.

    y = sum_e p_e (w2_e act(w1_e x + b1_e) + b2_e)        over the k largest p_e

with w1 [E, I, K] and w2 [E, K, I]. What can become QMoE is what ONNX Runtime's kernel for the CPU
computes (measured with 1.32).
"""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxq import formats
from onnxq.passes.block_size import AUTOMATIC
from onnxq.passes.choices import BITS, CODEBOOK
from onnxq.passes.edit import constant
from onnxq.passes.qdq.rules.base import NOT_CONSTANT, Operands
from onnxq.passes.value_types import FLOATS
from onnxq.recipe import Weights
from onnxq.targets import No
from onnxq.types import PerBlock, QuantSpec

EXPERTS = "experts"  # the kind of a MoE
FIRST, SECOND, THIRD = 2, 4, 6  # the inputs that are weights; biases follow them

_ACTIVATIONS = ("relu", "gelu", "silu", "swiglu", "identity")
_ROUNDED = 8  # bits of weights, with which activations are rounded
_ROUNDING = 4  # the accuracy_level that allows it


def is_experts(node: ir.Node) -> bool:
    """Whether `node` is a MoE."""
    return node.domain == "com.microsoft" and node.op_type == "MoE"


def describe_experts(node: ir.Node) -> Operands | No:
    """The operands of a MoE, or why it cannot have weights in blocks."""
    first, second = node.inputs[FIRST], node.inputs[SECOND]
    if first is None or second is None:
        return NOT_CONSTANT
    for weight in (first, second):
        tensor = constant(weight)
        if tensor is None:
            return NOT_CONSTANT
        if tensor.dtype not in FLOATS or len(tensor.shape.numpy()) != 3:
            return No("its weights are no stacks of matrices of floats")
        if not tensor.size:
            return No("its weights are empty")
    if (reason := _uncomputed(node)) is not None:
        return No(f"{reason}, which ONNX Runtime's QMoE does not compute on the CPU")
    return Operands(
        kind=EXPERTS,
        activation=0,
        weight_index=FIRST,
        weight=first,
        transposed=False,
        output_axis=1,
        reduced_axis=2,
        bias_index=FIRST + 1,
        channel_axis=-1,
        second=second,
    )


def _uncomputed(node: ir.Node) -> str | None:
    """What of a MoE the kernel does not compute, in words."""
    activation = node.attributes.get_string("activation_type", "relu")
    if activation not in _ACTIVATIONS:
        return f"it has the activation function {activation}"
    if len(node.inputs) > THIRD and node.inputs[THIRD] is not None:
        return "its gates have a weight of their own (fc3)"
    if activation == "swiglu" and node.attributes.get_int("swiglu_fusion", 0) != 1:
        return "its gates are not interleaved in its first weight (swiglu_fusion = 1)"
    if node.attributes.get_int("swiglu_limit_after_activation", 0):
        return "it limits its gates behind the activation function"
    mixes = node.attributes.get_int("use_sparse_mixer", 0)
    if mixes and not node.attributes.get_int("normalize_routing_weights", 0):
        return "it has a sparse mixer whose weights are not normalized"
    return None


def expert_weights(operands: Operands, weights: Weights) -> Weights:
    """`weights` as far as experts can have them: of integers, and what suits all, where open."""
    changes: dict[str, object] = {"float_zero_points": False}
    if weights.bits in ("auto", CODEBOOK):
        changes["bits"] = BITS
    if weights.block_size == "auto":
        common = math.gcd(*_lengths(operands))
        changes["block_size"] = max(
            (size for size in AUTOMATIC if common % size == 0), default=min(AUTOMATIC)
        )
    return weights.model_copy(update=changes)


def misfit(operands: Operands, spec: QuantSpec, weights: Weights) -> No | None:
    """Why the experts cannot have `spec`; None if they can."""
    assert isinstance(spec.granularity, PerBlock)
    for length in _lengths(operands):
        if length % spec.granularity.size:
            return No(
                f"its {length} rows are no multiple of the block size {spec.granularity.size}, "
                "which QMoE needs"
            )
    if formats.get(spec.format).bits == _ROUNDED and weights.accuracy_level != _ROUNDING:
        return No(
            "QMoE rounds activations to 8 bits where its weights have blocks of 8 bits: allow that "
            "with accuracy_level: 4, or choose 4 bits"
        )
    return None


def _lengths(operands: Operands) -> list[int]:
    """How many numbers each product of an expert adds up."""
    tensors = (value.const_value for value in (operands.weight, operands.second) if value)
    return [tensor.shape.numpy()[2] for tensor in tensors if tensor is not None]
