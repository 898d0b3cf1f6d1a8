"""Models that a builder takes without complaint, into an engine that computes wrong numbers.

Measured with TensorRT-RTX 1.7:

- weights in blocks that do not divide their axis: the block size is inferred as (size / blocks);
- weights in blocks, times a quantized activation: the scale of the first block serves for all;
- unsigned codes, which a QuantizeLinear without zero point writes too: they are read as signed.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.engines.attest import PRODUCTS
from onnxq.engines.codes import DOMAINS, code_type, dequantize_before
from onnxq.errors import EngineError

_AGAIN = "Quantize the float model for this target: onnxq quantize --target."


def refuse(model: ir.Model) -> None:
    """Refuse a model that would become such an engine.

    Raises:
        EngineError: The message names the node.
    """
    for node in model.graph.all_nodes():
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain in DOMAINS:
            _refuse_unsigned(node)
            _refuse_ragged(node)
        elif node.op_type in PRODUCTS and len(node.inputs) > 1:
            _refuse_blocks_with_quantized_activation(node)


def _refuse_unsigned(node: ir.Node) -> None:
    if code_type(node) == ir.DataType.UINT8:
        raise EngineError(
            f"{node.op_type} '{node.name}' has unsigned 8-bit codes; TensorRT takes int8, and "
            "would read them as signed.",
            f"Give it a zero point 0 of type int8. {_AGAIN}",
        )


def _refuse_ragged(node: ir.Node) -> None:
    size = node.attributes.get_int("block_size", 0)
    codes = node.inputs[0]
    if not size or codes is None or codes.shape is None:
        return
    length = codes.shape[node.attributes.get_int("axis", 1)]
    if isinstance(length, int) and length % size:
        raise EngineError(
            f"DequantizeLinear '{node.name}' has {length} codes along its axis, no multiple of its "
            f"block size {size}: the engine would compute wrong numbers.",
            _AGAIN,
        )


def _refuse_blocks_with_quantized_activation(node: ir.Node) -> None:
    activation, weight = (dequantize_before(value) for value in node.inputs[:2])
    if activation is None or weight is None or _blocks(weight) < 2:
        return
    raise EngineError(
        f"{node.op_type} '{node.name}' has weights in blocks and a quantized activation: the "
        "engine would use the first block's scale for all of them.",
        "Quantize the weights per channel, or leave the activation in float.",
    )


def _blocks(node: ir.Node) -> int:
    """The number of blocks along the axis of a blockwise DequantizeLinear; 1 for any other."""
    scale = node.inputs[1]
    if not node.attributes.get_int("block_size", 0) or scale is None or scale.shape is None:
        return 1
    blocks = scale.shape[node.attributes.get_int("axis", 1)]
    return blocks if isinstance(blocks, int) else 1
