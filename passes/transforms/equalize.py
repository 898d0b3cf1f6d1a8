"""Move the differences between the channels of an activation into the weights that read it.

    W x = (W diag(s)) (diag(1/s) x),    s_j = max|x_j|^alpha / max|W_j|^(1 - alpha)

A single scale for all of diag(1/s) x costs its small channels less, and the weights have a scale
per output channel anyway. alpha says how much is moved. Nothing is clipped, unlike by a smaller
range. The division goes into what computes x where it can, else it is done at run time.
(SmoothQuant, Xiao et al. 2022, arXiv:2211.10438, equation 4, here for convolutions as well.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.transforms.absorb import Absorption, absorption
from onnxq.passes.transforms.absorb_far import absorption_far
from onnxq.types import Array

EQUALIZED = "onnxq.equalized"  # marks the result of a division


class Equalize(GraphPass):
    """Divide activations by s, and multiply the weights of the planned ops that read them by it.

    Args:
        plan: The plan of this very model; it has to be made again afterwards.
        strengths: s, float [channels], by the name of the activation.
        absorbed: How activations take the division in, by name; None for `absorptions` of the plan.
    """

    def __init__(
        self,
        plan: QuantPlan,
        strengths: Mapping[str, Array],
        absorbed: Mapping[str, Absorption] | None = None,
    ) -> None:
        super().__init__()
        self._plan = plan
        self._strengths = strengths
        self._absorbed = absorbed

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor = Editor(model)
        absorbed = absorptions(self._plan) if self._absorbed is None else self._absorbed
        divided: dict[ir.Value, ir.Value] = {}
        weights: dict[tuple[ir.Value, str], ir.Value] = {}
        for op in self._plan.products:
            name = self._plan.inputs[op.node]
            if name not in self._strengths:
                continue
            node, strength = self._plan.graph_nodes[op.node], self._strengths[name]
            value = node.inputs[op.operands.activation]
            assert value is not None
            if value not in divided:
                into = name in absorbed
                divided[value] = value if into else _divide(editor, value, op, strength)
            key = (op.operands.weight, name)
            if key not in weights:
                weights[key] = _multiply(editor, node, op, strength)
            _read_weight(editor, node, op, weights[key])
            node.replace_input_with(op.operands.activation, divided[value])
        for name in self._strengths.keys() & absorbed.keys():
            absorbed[name].apply(editor, 1 / self._strengths[name])
        return len(divided)


def absorptions(plan: QuantPlan, *, far: bool = False) -> dict[str, Absorption]:
    """The activations read by planned ops alone that can be divided in what computes them.

    Args:
        plan: Of the model as it is.
        far: Whether to look past other activations: see `onnxq.passes.transforms.absorb_far`.
    """
    readers: dict[ir.Value, list[PlannedOp]] = {}
    for op in plan.products:
        value = plan.graph_nodes[op.node].inputs[op.operands.activation]
        assert value is not None
        readers.setdefault(value, []).append(op)
    found = {}
    for value, ops in readers.items():
        nodes = [plan.graph_nodes[op.node] for op in ops]
        axis, count = ops[0].operands.channel_axis, channels(ops[0], nodes[0])
        way = absorption(value, nodes, axis, count)
        if way is None and far and axis == -1:
            way = absorption_far(value, nodes, count)
        if way is not None and len({op.operands.channel_axis for op in ops}) == 1:
            found[value.name or ""] = way
    return found


def channels(op: PlannedOp, node: ir.Node) -> int:
    """How many channels the activation of `op` has, by its weight."""
    weight = op.operands.weight.const_value
    assert weight is not None
    shape = weight.shape.numpy()
    if op.operands.reduced_axis is not None:
        return shape[op.operands.reduced_axis]
    if op.op_type == "ConvTranspose":
        return shape[0]
    return shape[1] * node.attributes.get_int("group", 1)


def equalized(name: str) -> str:
    """The name of the activation called `name` after division."""
    return f"{name}_equalized_output"


def strength(op: PlannedOp, node: ir.Node, largest: Array, alpha: float) -> Array:
    """S of one op: float64 [channels], of geometric mean 1.

    Args:
        op: As planned.
        node: Its node.
        largest: max|x_j| [channels].
        alpha: From 0 (all differences stay in the activation) to 1 (all move into the weights).
    """
    assert op.operands.weight.const_value is not None
    weight = np.abs(op.operands.weight.const_value.numpy().astype(np.float32))
    per_input = _by_input(weight, node, op).max(axis=1).astype(np.float64)
    found = _positive(largest) ** alpha / _positive(per_input) ** (1 - alpha)
    return np.asarray(found / np.exp(np.log(found).mean()))


def _positive(values: Array) -> Array:
    """Channels that are never used count as a thousandth of the largest."""
    return np.maximum(values, max(float(values.max()) * 1e-3, 1e-30))


def _divide(editor: Editor, value: ir.Value, op: PlannedOp, strength: Array) -> ir.Value:
    producer, graph = value.producer(), value.graph
    assert isinstance(graph, ir.Graph)
    weight = op.operands.weight
    assert weight.const_value is not None and value.name is not None
    spatial = len(weight.const_value.shape) - 2 if op.operands.channel_axis == 1 else 0
    factor = (1 / strength).reshape(-1, *(1,) * spatial)
    dtype = weight.dtype or ir.DataType.FLOAT
    name = f"{value.name}_equalizer"
    constant = editor.initializer(editor.model.graph, name, factor.astype(dtype.numpy()))
    output = editor.node(
        "Mul",
        [value, constant],
        name=f"{value.name}_equalized",
        after=producer,
        graph=graph,
        dtype=dtype,
        shape=value.shape,
    )
    output.meta[EQUALIZED] = True
    return output


def _multiply(editor: Editor, node: ir.Node, op: PlannedOp, strength: Array) -> ir.Value:
    """The weight times s, computed when it is read."""
    value = op.operands.weight
    source = value.const_value
    assert source is not None
    factors = _factors(strength, node, op)

    def scaled() -> ir.Tensor[Array]:
        weight = source.numpy()
        return ir.Tensor((weight * factors).astype(weight.dtype), name=value.name)

    lazy = ir.LazyTensor(scaled, source.dtype, ir.Shape(source.shape.numpy()), name=value.name)
    return editor.initializer(editor.model.graph, f"{value.name}_equalized", lazy)


def _read_weight(editor: Editor, node: ir.Node, op: PlannedOp, weight: ir.Value) -> None:
    if op.operands.transposed:
        transpose = node.inputs[op.operands.weight_index].producer()  # type: ignore[union-attr]
        assert transpose is not None
        weight = editor.copy(transpose, [weight]).outputs[0]
    node.replace_input_with(op.operands.weight_index, weight)


def _by_input(weight: Array, node: ir.Node, op: PlannedOp) -> Array:
    """The weights that each input channel is multiplied by: [channels, ...]."""
    if op.operands.reduced_axis is not None:
        return np.moveaxis(weight, op.operands.reduced_axis, 0).reshape(
            weight.shape[op.operands.reduced_axis], -1
        )
    if node.op_type == "ConvTranspose":
        return weight.reshape(weight.shape[0], -1)
    groups = node.attributes.get_int("group", 1)
    per_group = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return per_group.transpose(0, 2, 1, 3).reshape(groups * weight.shape[1], -1)


def _factors(strength: Array, node: ir.Node, op: PlannedOp) -> Array:
    """S in a shape that multiplies the weight."""
    weight = op.operands.weight.const_value
    assert weight is not None
    shape = weight.shape.numpy()
    if op.operands.reduced_axis is not None:
        along = [1] * len(shape)
        along[op.operands.reduced_axis] = -1
        return strength.reshape(along).astype(np.float32)
    ones = (1,) * (len(shape) - 2)
    if node.op_type == "ConvTranspose":
        return strength.reshape(-1, 1, *ones).astype(np.float32)
    groups = node.attributes.get_int("group", 1)
    per_group = strength.reshape(groups, 1, shape[1])
    per_output = np.broadcast_to(per_group, (groups, shape[0] // groups, shape[1]))
    return per_output.reshape(shape[0], shape[1], *ones).astype(np.float32)
