"""What the rules of all ops share."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxq.passes.edit import constant
from onnxq.targets import No

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

# What lies between a fused projection and the ops that cut it.
_BETWEEN = ("Add", "Mul", "Reshape", "Transpose", "Identity")
_CUTS = ("Slice", "Gather", "Split")

NOT_CONSTANT = No("its weight is computed at run time, not a constant")


@dataclass(frozen=True)
class Operands:
    """The operands of an op that can be quantized.

    Attributes:
        kind: One of `onnxq.targets.base.OP_KINDS`.
        activation: The index of the input that is an activation.
        weight_index: The index of the input that is the weight.
        weight: The initializer that holds the weight.
        transposed: Whether the op reads `weight` through a Transpose node.
        output_axis: The axis of `weight` along the output channels.
        reduced_axis: The axis of `weight` that is summed over, for matrices.
        bias_index: The index of the bias input; None where the op has none.
    """

    kind: str
    activation: int
    weight_index: int
    weight: ir.Value
    transposed: bool
    output_axis: int
    reduced_axis: int | None
    bias_index: int | None


@dataclass(frozen=True)
class Weight:
    """An initializer, read directly or through a Transpose of a matrix."""

    value: ir.Value
    transposed: bool


def find_weight(value: ir.Value | None) -> Weight | No:
    """The constant that `value` is or is the transpose of."""
    transposed = False
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose":
        source = producer.inputs[0]
        if source is not None and source.shape is not None and len(source.shape) == 2:
            value, transposed = source, True
    tensor = constant(value)
    if value is None or tensor is None:
        return NOT_CONSTANT
    if tensor.dtype not in _FLOATS:
        return No(f"its weight is {tensor.dtype.name.lower()}; float32, float16 or bfloat16 needed")
    return Weight(value, transposed)


def is_split(product: ir.Value) -> bool:
    """Whether `product` is cut into parts, as a fused query-key-value projection is."""
    value = product
    while True:
        uses = [node for node, _ in value.uses()]
        if uses and all(node.op_type in _CUTS for node in uses):
            return len(uses) > 1 or uses[0].op_type == "Split"
        if len(uses) != 1 or uses[0].op_type not in _BETWEEN:
            return False
        value = uses[0].outputs[0]


def shape(weight: Weight) -> tuple[int, ...]:
    """The shape of the initializer that holds a weight."""
    tensor = weight.value.const_value
    assert tensor is not None
    return tuple(tensor.shape.numpy())
