"""How much quantization shifts the mean of each output channel of an op, as model outputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer
from onnxq.passes.plan import PlannedOp


class Shift(NamedTuple):
    """Names of outputs of the model, about the output y of one op and that of its twin, y'."""

    sums: str  # of y' - y over each channel: float32 [channels]
    elements: str  # number of elements of y


class Shifts:
    """Adds sums of shifts to a model.

    Args:
        editor: Of the model.

    Attributes:
        outputs: The sums made so far, as the main graph sees them.
    """

    def __init__(self, editor: Editor) -> None:
        self.outputs: list[ir.Value] = []
        self._editor = editor
        self._exposer = Exposer(editor)

    def shift(self, op: PlannedOp, y: ir.Value, twin: ir.Value) -> Shift:
        """The sums over the output `y` of an op and its `twin`, computed later."""
        exposed = [self._exposer.total(value) for value in _sums(self._editor, op, y, twin)]
        self.outputs += exposed
        return Shift(*(value.name or "" for value in exposed))


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
