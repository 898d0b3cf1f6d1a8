"""Beside each op of a plan the same op quantized, both on the activation of the float model.

    x -----------> op ------> activation function ------> y
    x -> Q/DQ ---> its twin -> the function's twin -----> y'

The function belongs to it because it says what of the op's output matters: SiLU drops a negative
value of any size. The outputs of the model become sums over y and y', so one inference tells the
error that quantization makes at every op, apart from the errors made before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import onnx_ir as ir

from onnxq.passes.edit import Editor, constant
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.qdq.insert import ActivationParams, InsertQdq
from onnxq.passes.qdq.shifts import Shift, Shifts
from onnxq.passes.qdq.sums import Measure, Sums
from onnxq.passes.residuals import Residual
from onnxq.passes.transforms.correct_bias import can_correct
from onnxq.passes.transforms.equalize import EQUALIZED

# What activation functions are made of, and the addition of a bias.
_ELEMENTWISE = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh"),
    *("Softplus", "Gelu", "Mish", "Erf", "Exp", "Add", "Sub", "Mul", "Div", "Pow"),
)


class TwinSums(NamedTuple):
    """Names of outputs of a model that has twins, by the names of planned ops."""

    sums: dict[str, list[Sums]]  # of every y: a value of the op or its function, read elsewhere
    shifts: dict[str, Shift]  # of the op's own output, if it has a bias or room for one


def add_twins(model: ir.Model, plan: QuantPlan, params: ActivationParams) -> TwinSums:
    """Add the twins to `model`, whose outputs become the sums.

    Args:
        model: Edited in place.
        plan: The static plan of this very model.
        params: Gives the calibrated scale and zero point of a value by its name.
    """
    twins = Twins(Editor(model), plan)
    measure, means = Measure(twins.editor), Shifts(twins.editor)
    found = TwinSums({}, {})
    correctable = {op.node for op in plan.products if can_correct(plan, op)}
    for op in plan.ops:
        nodes = list(_with_function(plan.graph_nodes[op.node]))
        read = _read(nodes)
        pairs = twins.add(op, nodes)
        found.sums[op.node] = [measure.sums(y, pairs[y]) for y in read]
        if op.node in correctable:
            y = nodes[0].outputs[0]
            found.shifts[op.node] = means.shift(op, y, pairs[y])
    twins.quantize(params)
    model.graph.outputs[:] = [*measure.outputs, *means.outputs]
    return found


class Twins:
    """Copies of planned ops, to be quantized in place of the originals.

    Args:
        editor: Of the model.
        plan: The static plan of that very model.
    """

    def __init__(self, editor: Editor, plan: QuantPlan) -> None:
        self.editor = editor
        self._plan = plan
        self._ops: list[PlannedOp] = []
        self._residuals: list[Residual] = []
        self._nodes: dict[str, ir.Node] = {}
        self._originals: dict[str | None, str | None] = {}

    def add(self, op: PlannedOp, nodes: Iterable[ir.Node]) -> dict[ir.Value, ir.Value]:
        """Copy `nodes`, of which the op's own is the first; return the twin of each value."""
        twins: dict[ir.Value, ir.Value] = {}
        for each in nodes:
            inputs = [value if value is None else twins.get(value, value) for value in each.inputs]
            twin = self.editor.copy(each, inputs)
            twins[each.outputs[0]] = twin.outputs[0]
            self.alias(twin.outputs[0], each.outputs[0])
        copy = twins[self._plan.graph_nodes[op.node].outputs[0]].producer()
        assert copy is not None
        self.put(op, copy, None if op.output is None else twins[op.output])
        return twins

    def put(self, op: PlannedOp, node: ir.Node, output: ir.Value | None) -> None:
        """Let `node`, with its value `output`, be the copy of `op`."""
        self._nodes[op.node] = node
        self._ops.append(dataclasses.replace(op, output=output))

    def join(self, residual: Residual, node: ir.Node) -> None:
        """Let `node` be the copy of a sum that reads codes of copies."""
        self._nodes[residual.node] = node
        self._residuals.append(residual)

    def alias(self, value: ir.Value, original: ir.Value) -> None:
        """Quantize `value` with the scale of `original`."""
        self._originals[value.name] = self._originals.get(original.name, original.name)

    def plan(self) -> QuantPlan:
        """The plan, about the copies."""
        ops, residuals = tuple(self._ops), tuple(self._residuals)
        return dataclasses.replace(
            self._plan, ops=ops, residuals=residuals, graph_nodes=self._nodes
        )

    def quantize(self, params: ActivationParams) -> None:
        """Quantize the copies."""
        originals = self._originals
        InsertQdq(self.plan(), lambda name, spec: params(originals.get(name) or name, spec))(
            self.editor.model
        )


def sites(node: ir.Node) -> list[ir.Value]:
    """Where the error of an op shows: what others read of it and of the function behind it."""
    return _read(list(_with_function(node)))


def _with_function(node: ir.Node) -> Iterator[ir.Node]:
    """`node` and the elementwise ops that read nothing but it, each other and constants."""
    yield node
    inside = {node.outputs[0]}
    waiting = [node.outputs[0]]
    while waiting:
        readers = [reader for reader, _ in waiting.pop(0).uses()]
        for reader in dict.fromkeys(readers):
            if reader.outputs[0] in inside or not _is_elementwise(reader):
                continue
            if all(v is None or v in inside or constant(v) is not None for v in reader.inputs):
                inside.add(reader.outputs[0])
                waiting.append(reader.outputs[0])
                yield reader


def _is_elementwise(node: ir.Node) -> bool:
    # Behind a division by channel all channels would count the same.
    divides = EQUALIZED in node.outputs[0].meta
    return node.op_type in _ELEMENTWISE and not node.domain and not divides


def _read(nodes: list[ir.Node]) -> list[ir.Value]:
    """The values of `nodes` that something else reads."""
    own = set(nodes)
    values = [node.outputs[0] for node in nodes]
    return [
        value
        for value in values
        if value.is_graph_output() or not all(reader in own for reader, _ in value.uses())
    ]
