"""LSTM: weights W [directions, 4 * hidden, in] and R [directions, 4 * hidden, hidden]."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.qdq.rules.base import Operands, find_weight
from onnxq.targets import No


def describe(node: ir.Node) -> Operands | No:
    """See `onnxq.passes.qdq.rules`."""
    weight, recurrent = (find_weight(value) for value in node.inputs[1:3])
    if isinstance(weight, No):
        return weight
    if isinstance(recurrent, No):
        return recurrent
    if node.attributes.get_int("layout", 0):
        return No("it is an LSTM whose batch comes first (layout = 1)")
    if weight.value.dtype != ir.DataType.FLOAT:
        return No("it is an LSTM that computes in 16 bits; float32 is needed")
    return Operands(
        kind="lstm",
        activation=0,
        weight_index=1,
        weight=weight.value,
        transposed=False,
        output_axis=1,
        reduced_axis=2,
        bias_index=3,
        channel_axis=-1,
        second=recurrent.value,
    )


RULE = describe
