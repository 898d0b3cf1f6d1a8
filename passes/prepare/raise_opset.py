"""Raise the version of the default operator set; never lower it."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import version_converter

from onnxq.errors import ModelError
from onnxq.passes.base import GraphPass
from onnxq.passes.prepare.lower_opset import least_ir_version
from onnxq.passes.quiet import quiet


class RaiseOpset(GraphPass):
    """Convert a model of an older opset to `opset`.

    onnxscript converts from opset 18 on; below that the C++ converter of onnx does, with large
    weights held aside.
    """

    def __init__(self, opset: int) -> None:
        super().__init__()
        self.opset = opset

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`.

        Raises:
            ModelError: The model has no default opset, or an op has no conversion.
        """
        found = model.opset_imports.get("")
        if found is None:
            raise ModelError(
                "The model imports no version of the ONNX operator set.",
                "Export it again: onnxq needs ops of the default domain.",
            )
        if found >= self.opset:
            return 0
        declared = [(value.type, value.shape) for value in model.graph.outputs]
        with quiet("onnxscript.version_converter"):
            version_converter.convert_version(model, self.opset, fallback=True)
        if model.opset_imports[""] != self.opset:
            raise ModelError(
                f"The model has opset {found}, opset {self.opset} is needed, and no converter "
                "takes it there.",
                f"Export it again with opset {self.opset} or newer.",
            )
        for value, (kind, shape) in zip(model.graph.outputs, declared, strict=True):
            value.type, value.shape = kind or value.type, shape or value.shape
        # An IR version says which fields a file may hold; each opset came with one.
        model.ir_version = max(model.ir_version, least_ir_version(self.opset))
        return 1
