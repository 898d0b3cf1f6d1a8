"""Conv: weight [out, in / group, *kernel]."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxq.passes.edit import constant
from onnxq.passes.qdq.rules.base import Operands, Weight, find_weight, shape
from onnxq.targets import No

_LARGE = 32
_THIN_INPUT, _THIN_OUTPUT = 32, 16
_SMALL = 1 << 16
_POOLING = ("GlobalAveragePool", "GlobalMaxPool")
# What squeeze-and-excitation blocks put between the pooling and the last of their convolutions.
_ON_POOLED = ("Conv", "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Add", "Mul", "Div")


def describe(node: ir.Node) -> Operands | No:
    """See `onnxq.passes.qdq.rules`."""
    weight = find_weight(node.inputs[1])
    if isinstance(weight, No):
        return weight
    return Operands(
        kind=_kind(node, weight),
        activation=0,
        weight_index=1,
        weight=weight.value,
        transposed=False,
        output_axis=0,
        reduced_axis=None,
        bias_index=2,
        channel_axis=1,
    )


def _kind(node: ir.Node, weight: Weight) -> str:
    outputs, inputs = shape(weight)[:2]
    if node.attributes.get_int("group", 1) > 1 and inputs == 1:
        return "depthwise-conv"
    if math.prod(shape(weight)) < _SMALL and _is_pooled(node.inputs[0]):
        return "pooled-conv"
    if inputs < _THIN_INPUT or outputs < _THIN_OUTPUT:
        return "thin-conv"
    if math.prod(shape(weight)[2:]) > _LARGE:
        return "large-conv"
    return "conv"


def _is_pooled(value: ir.Value | None) -> bool:
    """Whether a global pooling produced `value`, or what it was computed from elementwise."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type in _POOLING:
        return node is not None
    if node.op_type not in _ON_POOLED:
        return False
    operands = [each for each in node.inputs[:2] if each is not None and constant(each) is None]
    return all(_is_pooled(operand) for operand in operands)


RULE = describe
