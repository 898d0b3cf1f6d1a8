"""Conv: weight [out, in / group, *kernel]."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.qdq.rules.base import Operands, find_weight
from onnxq.targets import No


def describe(node: ir.Node) -> Operands | No:
    """See `onnxq.passes.qdq.rules`."""
    weight = find_weight(node.inputs[1])
    if isinstance(weight, No):
        return weight
    assert weight.value.const_value is not None
    groups = node.attributes.get_int("group", 1)
    channels_per_group = weight.value.const_value.shape[1]
    depthwise = groups > 1 and channels_per_group == 1
    return Operands(
        kind="depthwise-conv" if depthwise else "conv",
        activation=0,
        weight_index=1,
        weight=weight.value,
        transposed=False,
        output_axis=0,
        reduced_axis=None,
        bias_index=2,
    )


RULE = describe
