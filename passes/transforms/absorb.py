"""Where a factor for each channel of an activation can go instead of into a node of its own.

    f(W x + b) diag(c) = f((diag(c) W) x + diag(c) b)       for f with f(c x) = c f(x), c > 0

The rows of W, which have a scale each, and b take it in, or the constants of a normalization.
(Meller et al., "Same, Same But Different", 2019, arXiv:1902.01917; Nagel et al., 2019,
arXiv:1906.04721.)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import Editor, constant_array, graph_of
from onnxq.types import Array

_HOMOGENEOUS = (
    *("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    "Identity",
)


@dataclass(frozen=True)
class Repeats:
    """Channels of an activation that are channels of what makes it, repeated head by head.

    Attributes:
        heads: Of what makes it.
        times: How often each comes, one after another.
        size: Channels of a head.
    """

    heads: int
    times: int
    size: int

    def apart(self, channels: Array) -> Array:
        """A number for each channel as [heads, times, size]."""
        return channels.reshape(self.heads, self.times, self.size)

    def shared(self, channels: Array) -> Array:
        """The same with the mean of all times in place of each."""
        apart = self.apart(channels)
        return np.broadcast_to(apart.mean(axis=1, keepdims=True), apart.shape).reshape(-1)


@dataclass(frozen=True)
class Absorption:
    """How an activation takes in factors.

    Attributes:
        values: Those that are multiplied: the activation, and what it is made of on the way.
        constants: What is to be multiplied instead: node, index of the input, axis of its channels.
        repeats: Which factors have to be alike; None for none.
    """

    values: tuple[ir.Value, ...]
    constants: tuple[tuple[ir.Node, int, int], ...]
    repeats: Repeats | None = None

    def apply(self, editor: Editor, factors: Array) -> None:
        """Multiply the constants by `factors` [channels]."""
        if self.repeats is not None:
            factors = self.repeats.apart(factors)[:, 0].reshape(-1)
        for node, index, axis in self.constants:
            value = node.inputs[index]
            assert value is not None
            source = value.const_value
            assert source is not None
            along = [1] * len(source.shape)
            along[axis] = -1
            scaled = _Scaled(source, factors.reshape(along))
            node.replace_input_with(
                index,
                editor.initializer(graph_of(node), f"{value.name}_equalized", scaled.tensor()),
            )


@dataclass(frozen=True)
class _Scaled:
    source: ir.TensorProtocol
    factors: Array

    def tensor(self) -> ir.LazyTensor:
        """The product, computed when it is read."""
        return ir.LazyTensor(self._compute, self.source.dtype, ir.Shape(self.source.shape.numpy()))

    def _compute(self) -> ir.Tensor[Array]:
        array = self.source.numpy()
        return ir.Tensor((array * self.factors).astype(array.dtype))


def absorption(
    value: ir.Value, readers: Collection[ir.Node], channel_axis: int, channels: int
) -> Absorption | None:
    """How `value` can be multiplied by factors for each channel, or None.

    Args:
        value: An activation.
        readers: The nodes that may read the product; if others do, there is no way.
        channel_axis: 1, or -1 for the last.
        channels: How many there are.
    """
    if value.is_graph_output() or not all(node in readers for node, _ in value.uses()):
        return None
    values, constants = [value], []
    while (node := value.producer()) is not None and not node.domain:
        if node.op_type in _HOMOGENEOUS:
            source = node.inputs[0]
        elif node.op_type in ("Add", "Mul"):
            at = [i for i in (0, 1) if _per_channel(node.inputs[i], channel_axis, channels)]
            if len(at) != 1:
                return None
            constants.append((node, at[0], _axis_of(node.inputs[at[0]], channels)))
            if node.op_type == "Mul":
                return Absorption(tuple(values), tuple(constants))
            source = node.inputs[1 - at[0]]
        else:
            found = _weights(node, channel_axis, channels)
            return None if found is None else Absorption(tuple(values), (*constants, *found))
        if source is None or source.is_graph_output() or len(source.uses()) > 1:
            return None
        values.append(source)
        value = source
    return None


def _weights(
    node: ir.Node, channel_axis: int, channels: int
) -> tuple[tuple[ir.Node, int, int], ...] | None:
    """The constants of an op that are as many as the channels of its output."""
    if len(node.outputs) > 1 and any(output.uses() for output in node.outputs[1:]):
        return None
    axis = _output_axis(node)
    if axis is None or (channel_axis == 1) != (node.op_type == "Conv"):
        return None
    weight = constant_array(node.inputs[1])
    if weight is None or weight.shape[axis] != channels or len(node.inputs[1].uses()) > 1:  # type: ignore[union-attr]
        return None
    found = [(node, 1, axis)]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant_array(node.inputs[2])
        if bias is None or bias.shape != (channels,):
            return None
        found.append((node, 2, 0))
    return tuple(found)


def _output_axis(node: ir.Node) -> int | None:
    match node.op_type:
        case "Conv":
            return 0
        case "MatMul":
            return -1
        case "Gemm":
            return 0 if node.attributes.get_int("transB", 0) else -1
        case "LayerNormalization" if node.attributes.get_int("axis", -1) == -1:
            return 0
    return None


def _per_channel(value: ir.Value | None, channel_axis: int, channels: int) -> bool:
    """Whether `value` is a constant with one element for each channel."""
    array = constant_array(value)
    if array is None or array.size != channels or channels == 1:
        return False
    if channel_axis == -1:
        return bool(array.shape[-1] == channels)
    return bool(array.ndim >= 3 and max(array.shape[-2:]) == 1)


def _axis_of(value: ir.Value | None, channels: int) -> int:
    array = constant_array(value)
    assert array is not None
    return int(np.argmax(np.array(array.shape) == channels))
