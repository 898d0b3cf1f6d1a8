"""Sums over a value and its quantized counterpart, as scalar outputs of the model."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer


class Sums(NamedTuple):
    """Names of scalar outputs of the model, about one y and its counterpart y'."""

    noise: str  # sum of (y' - y)^2
    squares: str  # sum of y^2
    total: str  # sum of y
    elements: str  # number of elements of y


class Measure:
    """Adds sums to a model.

    Args:
        editor: Of the model.

    Attributes:
        outputs: The scalars made so far, as the main graph sees them.
    """

    def __init__(self, editor: Editor) -> None:
        self.outputs: list[ir.Value] = []
        self._editor = editor
        self._exposer = Exposer(editor)

    def sums(self, y: ir.Value, twin: ir.Value) -> Sums:
        """The sums over `y` and `twin`, which is computed later in the same graph."""
        y, twin = self._as_float(y, twin), self._as_float(twin, twin)
        difference = self._compute("Sub", [twin, y], last=y)  # y's cast is the later one
        values = (
            self._compute("ReduceSumSquare", [difference], keepdims=0),
            self._compute("ReduceSumSquare", [y], keepdims=0),
            self._compute("ReduceSum", [y], keepdims=0),
            self._compute("Size", [y], dtype=ir.DataType.INT64),
        )
        exposed = [self._exposer.total(value) for value in values]
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
