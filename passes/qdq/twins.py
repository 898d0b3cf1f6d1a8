"""Beside each op of a plan the same op quantized, both on the activation of the float model.

    x -----------> op ------> activation function ------> y
    x -> Q/DQ ---> its twin -> the function's twin -----> y'

The function belongs to it because it says what of the op's output matters: SiLU drops a negative
value of any size. The outputs of the model become sums over y and y', so one inference tells the
error that quantization makes at every op, apart from the errors made before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import onnx_ir as ir

from onnxq.passes.edit import Editor, constant
from onnxq.passes.expose import Exposer
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.qdq.insert import ActivationParams, InsertQdq
from onnxq.passes.transforms.equalize import EQUALIZED
from onnxq.types import QParams, QuantSpec

# What activation functions are made of, and the addition of a bias.
_ELEMENTWISE = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh"),
    *("Softplus", "Gelu", "Mish", "Erf", "Exp", "Add", "Sub", "Mul", "Div", "Pow"),
)


class Sums(NamedTuple):
    """Names of scalar outputs of the model, about one y and its twin y'."""

    noise: str  # sum of (y' - y)^2
    squares: str  # sum of y^2
    total: str  # sum of y
    elements: str  # number of elements of y


def add_twins(model: ir.Model, plan: QuantPlan, params: ActivationParams) -> dict[str, list[Sums]]:
    """Add the twins to `model`, whose outputs become the sums.

    Args:
        model: Edited in place.
        plan: The static plan of this very model.
        params: Gives the calibrated scale and zero point of a value by its name.

    Returns:
        For each planned op, by name, the sums of every y: a value of the op, or of the function
        behind it, that something else reads.
    """
    twins = _Twins(model, plan)
    sums = {op.node: twins.add(op) for op in plan.ops}
    InsertQdq(twins.plan(), lambda name, spec: twins.params(name, spec, params))(model)
    model.graph.outputs[:] = twins.outputs
    return sums


class _Twins:
    def __init__(self, model: ir.Model, plan: QuantPlan) -> None:
        self.outputs: list[ir.Value] = []
        self._editor = Editor(model)
        self._exposer = Exposer(self._editor)
        self._plan = plan
        self._ops: list[PlannedOp] = []
        self._nodes: dict[str, ir.Node] = {}
        self._originals: dict[str | None, str | None] = {}

    def add(self, op: PlannedOp) -> list[Sums]:
        node = self._plan.graph_nodes[op.node]
        twins: dict[ir.Value, ir.Value] = {}
        for each in _with_function(node):
            inputs = [value if value is None else twins.get(value, value) for value in each.inputs]
            twin = self._editor.copy(each, inputs)
            twins[each.outputs[0]] = twin.outputs[0]
            self._originals[twin.outputs[0].name] = each.outputs[0].name
            self._nodes.setdefault(op.node, twin)
        output = None if op.output is None else twins[op.output]
        self._ops.append(dataclasses.replace(op, output=output))
        return [self._sums(y, twin) for y, twin in twins.items() if _is_read(y, twins)]

    def plan(self) -> QuantPlan:
        return dataclasses.replace(self._plan, ops=tuple(self._ops), graph_nodes=self._nodes)

    def params(self, name: str, spec: QuantSpec, params: ActivationParams) -> QParams:
        return params(self._originals.get(name) or name, spec)

    def _sums(self, y: ir.Value, twin: ir.Value) -> Sums:
        y, twin = self._as_float(y, twin), self._as_float(twin, twin)
        difference = self._compute("Sub", [twin, y], last=y)  # y's cast is the later one
        values = (
            self._compute("ReduceSumSquare", [difference], keepdims=0),
            self._compute("ReduceSumSquare", [y], keepdims=0),
            self._compute("ReduceSum", [y], keepdims=0),
            self._compute("Size", [y], dtype=ir.DataType.INT64),
        )
        exposed = [self._exposer.expose(value) for value in values]
        self.outputs += exposed
        return Sums(*(value.name or "" for value in exposed))

    def _as_float(self, value: ir.Value, last: ir.Value) -> ir.Value:
        """`value` in float32, in which the sums do not overflow, computed behind `last`."""
        return self._compute("Cast", [value], last, to=int(ir.DataType.FLOAT))

    def _compute(
        self,
        op_type: str,
        inputs: list[ir.Value],
        last: ir.Value | None = None,
        dtype: ir.DataType = ir.DataType.FLOAT,
        **attributes: int,
    ) -> ir.Value:
        return self._editor.node(
            op_type,
            inputs,
            name=f"{inputs[-1].name}_{op_type}",
            after=(last or inputs[0]).producer(),
            attributes=dict(attributes),
            dtype=dtype,
            shape=ir.Shape([]) if "keepdims" in attributes or op_type == "Size" else None,
        )


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


def _is_read(value: ir.Value, twins: dict[ir.Value, ir.Value]) -> bool:
    """Whether something else than the nodes that have twins reads `value`."""
    readers = [reader for reader, _ in value.uses()]
    has_twin = [reader.outputs[0] in twins for reader in readers]
    return value.is_graph_output() or not all(has_twin)
