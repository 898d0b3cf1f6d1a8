"""Fold an affine map per channel into the op before it.

    s (W * x + b) + t = (s W) * x + (s b + t)

for Conv, ConvTranspose and Gemm with constant weights, followed by

- BatchNormalization (inference):  s = gamma / sqrt(var + epsilon),  t = beta - s mean
- Mul by a constant:               s = constant, t = 0
- Add of a constant:               s = 1, t = constant

where a constant is one number, or one per output channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import (
    Editor,
    all_graphs,
    constant_array,
    graph_of,
    remove,
    replace_output,
)
from onnxq.types import Array

_LINEAR = ("Conv", "ConvTranspose", "Gemm")


class FoldAffine(GraphPass):
    """Fold BatchNormalization, Mul and Add into the Conv, ConvTranspose or Gemm before them."""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor = Editor(model)
        nodes = [n for g in all_graphs(model) for n in g if n.op_type in _LINEAR and not n.domain]
        return sum(_fold_all(node, editor) for node in nodes)


@dataclass(frozen=True)
class _Affine:
    scale: Array
    shift: Array


def _fold_all(node: ir.Node, editor: Editor) -> int:
    weight = constant_array(node.inputs[1])
    if weight is None:
        return 0
    channels = _output_channels(node, weight)
    bias = _bias(node, channels)
    if bias is None:
        return 0
    spatial = weight.ndim - 2
    dtype = weight.dtype
    total = _Affine(np.ones(channels), np.zeros(channels))
    folded = 0
    while found := _next_affine(node, channels, spatial):
        follower, affine = found
        total = _Affine(affine.scale * total.scale, affine.scale * total.shift + affine.shift)
        replace_output(follower.outputs[0], node.outputs[0])
        remove([follower])
        folded += 1
    if not folded:
        return 0
    graph = graph_of(node)
    if not np.array_equal(total.scale, np.ones(channels)):
        scaled = _scale_weight(node, weight.astype(np.float64), total.scale).astype(dtype)
        node.replace_input_with(1, editor.initializer(graph, f"{node.name}_weight", scaled))
    new = (total.scale * bias + total.shift).astype(dtype)
    node.resize_inputs(3)
    node.replace_input_with(2, editor.initializer(graph, f"{node.name}_bias", new))
    node.attributes.pop("beta", None)
    return folded


def _next_affine(node: ir.Node, channels: int, spatial: int) -> tuple[ir.Node, _Affine] | None:
    output = node.outputs[0]
    uses = output.uses()
    if len(uses) != 1 or output.is_graph_output():
        return None
    follower, index = next(iter(uses))
    if follower.graph is not node.graph or follower.domain:
        return None
    if follower.op_type == "BatchNormalization" and index == 0:
        affine = _batch_norm(follower)
    elif follower.op_type in ("Mul", "Add"):
        operand = constant_array(follower.inputs[1 - index])
        affine = _elementwise(follower.op_type, operand, channels, spatial)
    else:
        return None
    return None if affine is None else (follower, affine)


def _batch_norm(node: ir.Node) -> _Affine | None:
    numbers = [constant_array(value) for value in node.inputs[1:5]]
    training = node.attributes.get_int("training_mode", 0)
    if training or len(node.outputs) > 1 or any(number is None for number in numbers):
        return None
    gamma, beta, mean, var = (np.asarray(number, dtype=np.float64) for number in numbers)
    scale = gamma / np.sqrt(var + node.attributes.get_float("epsilon", 1e-5))
    return _Affine(scale, beta - scale * mean)


def _elementwise(
    op_type: str, operand: Array | None, channels: int, spatial: int
) -> _Affine | None:
    if operand is None:
        return None
    if operand.size == 1 and operand.ndim <= spatial + 2:
        vector = np.full(channels, operand.item(), dtype=np.float64)
    else:
        axis = operand.ndim - spatial - 1
        per_channel = axis in (0, 1) and operand.shape[axis] == channels == operand.size
        if not per_channel:
            return None
        vector = operand.reshape(channels).astype(np.float64)
    if op_type == "Mul":
        return _Affine(vector, np.zeros(channels))
    return _Affine(np.ones(channels), vector)


def _output_channels(node: ir.Node, weight: Array) -> int:
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * node.attributes.get_int("group", 1)
    if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
        return int(weight.shape[1])
    return int(weight.shape[0])


def _scale_weight(node: ir.Node, weight: Array, scale: Array) -> Array:
    if node.op_type == "ConvTranspose":
        groups = node.attributes.get_int("group", 1)
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        per_group = scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
        return np.asarray((grouped * per_group).reshape(weight.shape))
    if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
        return weight * scale
    return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))


def _bias(node: ir.Node, channels: int) -> Array | None:
    """What `node` adds to each channel; None if that is not constant, or differs by row."""
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(channels)
    addend = constant_array(value)
    if addend is None or (addend.size > 1 and addend.shape not in ((channels,), (1, channels))):
        return None
    beta = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    return np.asarray(beta * np.broadcast_to(addend.astype(np.float64).reshape(-1), channels))
