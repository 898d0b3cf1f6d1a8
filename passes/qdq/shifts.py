"""How much quantization shifts the mean of each output channel of an op, as model outputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.qdq.insert import ActivationParams
from onnxq.passes.qdq.twins import Twins
from onnxq.passes.transforms.correct_bias import can_correct


class Shift(NamedTuple):
    """Names of outputs of the model, about the output y of one op and that of its twin, y'."""

    sums: str  # of y' - y over each channel: float32 [channels]
    elements: str  # number of elements of y


def add_shifts(model: ir.Model, plan: QuantPlan, params: ActivationParams) -> dict[str, Shift]:
    """Add twins to `model`, whose outputs become the shifts of each op that has a bias.

    Args:
        model: Edited in place.
        plan: The static plan of this very model.
        params: Gives the calibrated scale and zero point of a value by its name.
    """
    editor = Editor(model)
    twins, exposer = Twins(editor, plan), Exposer(editor)
    outputs: list[ir.Value] = []
    shifts: dict[str, Shift] = {}
    for op in plan.products:
        if not can_correct(plan, op):
            continue
        node = plan.graph_nodes[op.node]
        follower = None if op.output is None else op.output.producer()
        nodes = [node] if follower is None or follower is node else [node, follower]
        y = node.outputs[0]
        twin = twins.add(op, nodes)[y]
        made = [exposer.total(value) for value in _sums(editor, op, y, twin)]
        outputs += made
        shifts[op.node] = Shift(*(value.name or "" for value in made))
    twins.quantize(params)
    model.graph.outputs[:] = outputs
    return shifts


def _sums(editor: Editor, op: PlannedOp, y: ir.Value, twin: ir.Value) -> tuple[ir.Value, ir.Value]:
    weight = op.operands.weight.const_value
    assert weight is not None
    graph, name = editor.model.graph, y.name
    node = y.producer()
    assert node is not None
    after = twin.producer()
    difference = editor.node("Sub", [twin, y], name=f"{name}_shift", after=after, dtype=y.dtype)
    as_float = editor.node(
        "Cast", [difference], name=f"{name}_shift_float", after=difference.producer(),
        attributes={"to": int(ir.DataType.FLOAT)}, dtype=ir.DataType.FLOAT,
    )  # fmt: skip
    spatial = len(weight.shape) - 2 if op.operands.channel_axis == 1 else 0
    channels = weight.shape.numpy()[op.operands.output_axis]
    if op.op_type == "ConvTranspose":
        channels *= node.attributes.get_int("group", 1)
    if spatial:
        axes = [0, *range(2, spatial + 2)]
    else:
        shape = editor.initializer(graph, f"{name}_rows", np.array([-1, channels]))
        as_float = editor.node(
            "Reshape", [as_float, shape], name=f"{name}_shift_rows", after=as_float.producer(),
            dtype=ir.DataType.FLOAT,
        )  # fmt: skip
        axes = [0]
    over = editor.initializer(graph, f"{name}_axes", np.array(axes))
    sums = editor.node(
        "ReduceSum", [as_float, over], name=f"{name}_shifts", after=as_float.producer(),
        attributes={"keepdims": 0}, dtype=ir.DataType.FLOAT, shape=ir.Shape([channels]),
    )  # fmt: skip
    elements = editor.node(
        "Size", [y], name=f"{name}_elements", after=after, dtype=ir.DataType.INT64,
        shape=ir.Shape([]),
    )  # fmt: skip
    return sums, elements
