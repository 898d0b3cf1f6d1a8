"""Factors for each channel that go past other activations, into what computes one of two operands.

    gate * up(x) diag(c) = gate * (up(x) diag(c))        mix v(x) diag(c) = mix (v(x) diag(c))

A gated layer multiplies two activations, one of which takes the factors in. Attention mixes rows of
values, channel by channel; where several heads mix the same values, their factors have to be alike.
Values that go into a cache, which is an output of the model, stay as they are.
(The scales of AWQ, Lin et al. 2023, arXiv:2306.00978, for the last product of each layer.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from onnxq.passes.edit import constant
from onnxq.passes.transforms.absorb import Absorption, Repeats, absorption

_NORMS = {  # and the index of their factors
    "RMSNormalization": 1,
    "SimplifiedLayerNormalization": 1,
    "SkipSimplifiedLayerNormalization": 2,
}
_HEADS_APART = (0, 2, 1, 3)  # [batch, sequence, heads, size] to [batch, heads, sequence, size]


def absorption_far(value: ir.Value, readers: Iterable[ir.Node], channels: int) -> Absorption | None:
    """How `value` can be multiplied by factors for each channel of its last axis, or None.

    Args:
        value: An activation.
        readers: The nodes that may read the product; if others do, there is no way.
        channels: How many there are.
    """
    allowed = set(readers)
    if value.is_graph_output() or not all(node in allowed for node, _ in value.uses()):
        return None
    node = value.producer()
    if node is None:
        return None
    if node.op_type in _NORMS:
        return _in_norm(value, node, channels)
    if node.domain:
        return None
    if node.op_type == "Mul":
        return _through_gate(value, node, channels)
    return _through_attention(value, channels) if node.op_type == "Reshape" else None


def _in_norm(value: ir.Value, node: ir.Node, channels: int) -> Absorption | None:
    index = _NORMS[node.op_type]
    scale = constant(node.inputs[index])
    if scale is None or tuple(scale.shape.numpy()) != (channels,) or value is not node.outputs[0]:
        return None
    is_last = node.attributes.get_int("axis", -1) == -1
    return Absorption((value,), ((node, index, 0),)) if is_last else None


def _through_gate(value: ir.Value, node: ir.Node, channels: int) -> Absorption | None:
    for operand in node.inputs:
        if operand is None or constant(operand) is not None or len(operand.uses()) > 1:
            continue
        way = absorption(operand, [node], -1, channels)
        if way is not None:
            return replace(way, values=(value, *way.values))
    return None


def _through_attention(value: ir.Value, channels: int) -> Absorption | None:
    joined = _before(value, "Reshape")
    mixed = _before(joined, "Transpose", perm=_HEADS_APART)
    each = _before(mixed, "MatMul", 1)
    spread = _before(each, "Reshape")  # where heads of queries share heads of values
    single = _before(spread, "Expand")
    apart = each if spread is None else _before(single, "Unsqueeze")
    split = _before(apart, "Transpose", perm=_HEADS_APART)
    source = _before(split, "Reshape")
    (heads, size), (shared, shared_size) = _heads(mixed), _heads(apart)
    if source is None or not shared or size != shared_size or heads * size != channels:
        return None
    if spread is not None and not (_starts(single, shared, 1) and _starts(spread, shared)):
        return None
    if heads % shared or (spread is None and heads != shared):
        return None
    way = absorption(source, [node for node, _ in source.uses()], -1, shared * size)
    if way is None:
        return None
    on_the_way = (value, joined, mixed, each, spread, single, apart, split)
    values = dict.fromkeys(passed for passed in on_the_way if passed is not None)
    repeats = Repeats(shared, heads // shared, size)
    return replace(way, values=(*values, *way.values), repeats=repeats)


def _before(
    value: ir.Value | None, op_type: str, index: int = 0, perm: tuple[int, ...] | None = None
) -> ir.Value | None:
    """The input of the op that makes `value`, which is read there alone, if it is that op."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != op_type or node.domain:
        return None
    if perm is not None and tuple(node.attributes.get_ints("perm", ())) != perm:
        return None
    found = node.inputs[index]
    if found is None or len(found.uses()) > 1 or found.is_graph_output():
        return None
    return found


def _heads(value: ir.Value | None) -> tuple[int, int]:
    """How many heads a value [batch, heads, sequence, size] has, and their size; 0 if unknown."""
    shape = () if value is None or value.shape is None else tuple(value.shape)
    if len(shape) != 4 or not isinstance(shape[1], int) or not isinstance(shape[3], int):
        return 0, 0
    return shape[1], shape[3]


def _starts(value: ir.Value | None, *sizes: int) -> bool:
    """Whether `value` has five axes, those behind the batch of these sizes."""
    shape = () if value is None or value.shape is None else tuple(value.shape)
    return len(shape) == 5 and shape[1 : 1 + len(sizes)] == sizes
