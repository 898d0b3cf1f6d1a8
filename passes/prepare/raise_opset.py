"""Raise the version of the default operator set; never lower it."""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir
from onnxscript import version_converter

from onnxq.errors import ModelError
from onnxq.passes.base import GraphPass


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
        with _quiet("onnxscript.version_converter"):
            version_converter.convert_version(model, self.opset, fallback=True)
        if model.opset_imports[""] != self.opset:
            raise ModelError(
                f"The model has opset {found}, opset {self.opset} is needed, and no converter "
                "takes it there.",
                f"Export it again with opset {self.opset} or newer.",
            )
        # An IR version says which fields a file may hold; each opset came with one.
        needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", self.opset)])
        model.ir_version = max(model.ir_version, needed)
        return 1


class _quiet:
    """Keep a logger below errors while the block runs."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
