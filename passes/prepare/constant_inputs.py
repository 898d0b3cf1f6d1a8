"""Initializers that are inputs as well become constants, which alone can be quantized.

Up to version 3 of ONNX's format every initializer is listed as an input, and none of them can be
fed. From version 4 on a caller may override one that is: that is no longer possible, and said.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.base import GraphPass

_OVERRIDABLE = 4  # the first version of the format with defaults that callers override
_SHOWN = 3


class ConstantInputs(GraphPass):
    """Take the initializers out of the inputs of the model.

    Attributes:
        note: What callers can no longer do, in words; empty if nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.note = ""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        inputs = list(model.graph.inputs)
        kept = [value for value in inputs if not value.is_initializer()]
        taken = [value.name or "" for value in inputs if value.is_initializer()]
        model.graph.inputs[:] = kept
        if taken and model.ir_version >= _OVERRIDABLE:
            self.note = (
                f"{len(taken)} inputs of the model have a value in it ({_list(taken)}). They are "
                "constants now: what is fed for them would not reach weights in codes."
            )
        return len(taken)


def _list(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (", ..." if len(names) > _SHOWN else "")
