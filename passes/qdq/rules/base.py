"""What the rules of all ops share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.passes.edit import constant
from onnxq.targets import No

TABLE = "table"  # the kind of a Gather of rows of a constant matrix

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

# What a projection passes on its way to attention: cuts into parts, moves, scales, rotations.
_ON_THE_WAY = (
    *("Slice", "Gather", "Split", "Concat", "Identity", "Cast"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Add", "Sub", "Mul", "Div", "Neg"),
)
_ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")

NOT_CONSTANT = No("its weight is computed at run time, not a constant")


@dataclass(frozen=True)
class Operands:
    """The operands of an op that can be quantized.

    Attributes:
        kind: One of `onnxq.targets.base.OP_KINDS`, "lstm" or "experts".
        activation: The index of the input that is an activation; of a table, the indices.
        weight_index: The index of the input that is the weight.
        weight: The initializer that holds the weight.
        transposed: Whether the op reads `weight` through a Transpose node.
        output_axis: The axis of `weight` along the output channels.
        reduced_axis: The axis of `weight` that is summed over, for matrices.
        bias_index: The index of the bias input; None where the op has none.
        channel_axis: The axis of the op's activation and output along their channels.
        second: The weight behind the first: of what an LSTM put out before, or of what the first
            products of experts give.
    """

    kind: str
    activation: int
    weight_index: int
    weight: ir.Value
    transposed: bool
    output_axis: int
    reduced_axis: int | None
    bias_index: int | None
    channel_axis: int
    second: ir.Value | None = None


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
    if not tensor.size:
        return No(f"its weight, of shape {list(tensor.shape.numpy())}, is empty")
    return Weight(value, transposed)


def is_fused_qkv(product: ir.Value) -> bool:
    """Whether `product` becomes all operands of attention: query, key and value."""
    return sum(_is_attention(reader) for reader in _readers(product)) >= 3


def _is_attention(node: ir.Node) -> bool:
    is_product = node.op_type == "MatMul" and all(constant(v) is None for v in node.inputs)
    return is_product or node.op_type in _ATTENTION


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """What reads `value`, straight or by way of ops that cut, move and scale it, once per input."""
    seen: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        for node, _ in waiting.pop().uses():
            if node.op_type not in _ON_THE_WAY:
                yield node
            elif node not in seen:
                seen.add(node)
                waiting += node.outputs


def shape(weight: Weight) -> tuple[int, ...]:
    """The shape of the initializer that holds a weight."""
    tensor = weight.value.const_value
    assert tensor is not None
    return tuple(tensor.shape.numpy())
