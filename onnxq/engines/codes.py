"""Where the operand of an op was quantized, and to what, as the graph says it."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.edit import constant

DOMAINS = ("", "ai.onnx", "com.microsoft")  # of the same QuantizeLinear and DequantizeLinear
# Ops that hand on what they read: whoever quantizes before them means the op behind them.
_PASSES_ON = (
    *("Transpose", "Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze", "Cast"),
    *("Relu", "Clip", "MaxPool", "Resize", "Pad"),
)


def dequantize_before(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that `value` comes from, through ops that only hand values on."""
    node = value.producer() if value is not None else None
    while node is not None and node.domain in DOMAINS:
        if node.op_type == "DequantizeLinear":
            return node
        scaled = node.op_type == "Mul" and constant(node.inputs[1]) is not None
        if node.op_type not in _PASSES_ON and not scaled:
            return None
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    return None


def code_type(node: ir.Node) -> ir.DataType | None:
    """The type of the codes that a QuantizeLinear writes or a DequantizeLinear reads.

    It follows from the value, the zero point, or the attribute `output_dtype`; without all three a
    QuantizeLinear writes uint8 (ONNX operator specification, QuantizeLinear-21).
    """
    codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if codes is not None and codes.dtype is not None:
        return codes.dtype
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == "QuantizeLinear":
        return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    producer = codes.producer() if codes is not None else None
    is_quantize = producer is not None and producer.op_type == "QuantizeLinear"
    return code_type(producer) if is_quantize else None  # type: ignore[arg-type]
