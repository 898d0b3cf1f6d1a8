"""ConvTranspose: weight [in, out / group, *kernel]."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.qdq.rules.base import Operands, find_weight
from onnxq.targets import No


def describe(node: ir.Node) -> Operands | No:
    """See `onnxq.passes.qdq.rules`."""
    weight = find_weight(node.inputs[1])
    if isinstance(weight, No):
        return weight
    if node.attributes.get_int("group", 1) > 1:
        return No("it is a grouped ConvTranspose, whose output channels lie on two weight axes")
    return Operands(
        kind="conv-transpose",
        activation=0,
        weight_index=1,
        weight=weight.value,
        transposed=False,
        output_axis=1,
        reduced_axis=None,
        bias_index=2,
        channel_axis=1,
    )


RULE = describe
