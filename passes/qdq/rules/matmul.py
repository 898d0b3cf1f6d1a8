"""MatMul: A B, with B the weight [K, N]."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.edit import constant
from onnxq.passes.qdq.rules.base import NOT_CONSTANT, Operands, find_weight, is_fused_qkv, shape
from onnxq.targets import No


def describe(node: ir.Node) -> Operands | No:
    """See `onnxq.passes.qdq.rules`."""
    weight = find_weight(node.inputs[1])
    if weight is NOT_CONSTANT and constant(node.inputs[0]) is not None:
        return No("its weight is the left operand; the right one is needed")
    if weight is NOT_CONSTANT:
        return No("both of its operands are activations")
    if isinstance(weight, No):
        return weight
    if len(shape(weight)) != 2:
        return No(f"its weight has {len(shape(weight))} dimensions; a matrix is needed")
    return Operands(
        kind="fused-qkv" if is_fused_qkv(node.outputs[0]) else "matmul",
        activation=0,
        weight_index=1,
        weight=weight.value,
        transposed=weight.transposed,
        output_axis=0 if weight.transposed else 1,
        reduced_axis=1 if weight.transposed else 0,
        bias_index=None,
        channel_axis=-1,
    )


RULE = describe
