"""What ops do to the channels of their inputs, which lie along the last axis."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.edit import constant, constant_array
from onnxq.passes.qdq.rules import Operands, describe
from onnxq.passes.ties import readers
from onnxq.targets import No

SAME = ("Cast", "Identity")

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def product(node: ir.Node) -> Operands | None:
    """The operands of a MatMul or Gemm whose weight no other node reads."""
    if node.op_type not in ("MatMul", "Gemm") or node.domain:
        return None
    operands = describe(node)
    if isinstance(operands, No) or len(list(readers(operands.weight))) > 1:
        return None
    return operands


def passes_on(node: ir.Node, index: int) -> bool:
    """Whether the output turns as the input does."""
    if node.op_type in SAME:
        return node.outputs[0].dtype in _FLOATS
    return node.op_type == "Add" or (node.op_type in ("Mul", "Div") and stretched(node) == index)


def stretched(node: ir.Node) -> int | None:
    """The index of the input that a Mul or Div multiplies by a number for all channels."""
    if node.op_type == "Mul" and _is_one_for_all(node.inputs[0]):
        return 1
    return 0 if _is_one_for_all(node.inputs[1]) else None


def _is_one_for_all(value: ir.Value | None) -> bool:
    tensor = constant(value)
    return tensor.size == 1 if tensor is not None else value is not None and width_of(value) == 1


def is_square(node: ir.Node) -> bool:
    """Whether `node` multiplies each element by itself."""
    if node.domain or node.op_type not in ("Mul", "Pow"):
        return False
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    exponent = constant_array(node.inputs[1])
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2


def is_mean(node: ir.Node) -> bool:
    """Whether `node` sums over the last axis alone."""
    if node.domain or node.op_type not in ("ReduceMean", "ReduceSum"):
        return False
    axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    given = axes.tolist() if axes is not None else list(node.attributes.get_ints("axes", ()))
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    return given in ([-1], [] if shape is None else [len(shape) - 1])


def width_of(value: ir.Value) -> int | None:
    """How many channels `value` has, where that is known."""
    last = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return last if isinstance(last, int) else None
