"""Where some channels of a value come from: back through ops that only join, cut and move them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import constant_array
from onnxq.types import Array

_ELEMENTWISE = ("Sigmoid", "Relu", "Tanh", "Exp", "Clip", "Identity", "Cast", "Neg", "Softplus")


def sources(value: ir.Value, axis: int, channels: Array) -> list[ir.Value]:
    """The values that the channels are computed in, `value` itself if nothing tells them apart.

    Args:
        value: An activation.
        axis: Along which its channels lie.
        channels: bool [channels]: which ones.
    """
    node = value.producer()
    first = node.inputs[0] if node is not None and node.inputs else None
    if node is None or first is None or node.domain:
        return [value]
    if node.op_type in _ELEMENTWISE:
        return sources(first, axis, channels)
    if node.op_type == "Reshape" and _keeps(first, value, axis):
        return sources(first, axis, channels)
    if node.op_type == "Concat":
        return _joined(node, value, axis, channels)
    if node.op_type == "Split" and _axis(node, value) == axis:
        before = _before(node, value, axis)
        size = _size(first, axis)
        if before is not None and size is not None:
            whole = np.zeros(size, bool)
            whole[before : before + len(channels)] = channels
            return sources(first, axis, whole)
    return [value]


def _joined(node: ir.Node, value: ir.Value, axis: int, channels: Array) -> list[ir.Value]:
    inputs = [each for each in node.inputs if each is not None]
    if _axis(node, value) != axis:
        return _unique(found for each in inputs for found in sources(each, axis, channels))
    sizes = [size for each in inputs if (size := _size(each, axis)) is not None]
    if len(sizes) < len(inputs) or sum(sizes) != len(channels):
        return [value]
    edges = np.cumsum([0, *sizes])
    return _unique(
        found
        for each, (low, high) in zip(inputs, pairwise(edges), strict=True)
        if channels[low:high].any()
        for found in sources(each, axis, channels[low:high])
    )


def _unique(values: Iterable[ir.Value]) -> list[ir.Value]:
    return list(dict.fromkeys(values))


def _axis(node: ir.Node, value: ir.Value) -> int | None:
    rank = None if value.shape is None else len(value.shape)
    axis = node.attributes.get_int("axis", 0)
    return axis if axis >= 0 else None if rank is None else axis + rank


def _size(value: ir.Value, axis: int) -> int | None:
    if value.shape is None or axis >= len(value.shape):
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def _keeps(before: ir.Value, after: ir.Value, axis: int) -> bool:
    """Whether a Reshape leaves the channels of axis 1 where they are."""
    size = _size(before, 1)
    return axis == 1 and size is not None and size == _size(after, 1)


def _before(node: ir.Node, value: ir.Value, axis: int) -> int | None:
    """How many channels a Split gives to the outputs before `value`."""
    at = list(node.outputs).index(value)
    lengths = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if lengths is not None:
        return int(lengths[:at].sum())
    sizes = [size for each in node.outputs[:at] if (size := _size(each, axis)) is not None]
    return sum(sizes) if len(sizes) == at else None
