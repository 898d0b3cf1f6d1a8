"""Gemm: alpha A B + beta C, with B the weight [K, N], or [N, K] if transB."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.qdq.rules.base import Operands, find_weight, is_fused_qkv
from onnxq.targets import No


def describe(node: ir.Node) -> Operands | No:
    """See `onnxq.passes.qdq.rules`."""
    weight = find_weight(node.inputs[1])
    if isinstance(weight, No):
        return weight
    if node.attributes.get_int("transA", 0):
        return No("it is a Gemm that transposes its activation (transA = 1)")
    if (
        node.attributes.get_float("alpha", 1.0) != 1.0
        or node.attributes.get_float("beta", 1.0) != 1
    ):
        return No("it is a Gemm with alpha or beta other than 1")
    rows_are_outputs = bool(node.attributes.get_int("transB", 0)) != weight.transposed
    return Operands(
        kind="fused-qkv" if is_fused_qkv(node.outputs[0]) else "gemm",
        activation=0,
        weight_index=1,
        weight=weight.value,
        transposed=weight.transposed,
        output_axis=0 if rows_are_outputs else 1,
        reduced_axis=1 if rows_are_outputs else 0,
        bias_index=2,
        channel_axis=-1,
    )


RULE = describe
