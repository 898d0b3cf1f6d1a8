"""The pass contract.

A pass edits the model in place and says truthfully whether it changed it. It states what it needs
in its docstring, repairs only what it broke, and is idempotent: a second run modifies nothing.
"""

from __future__ import annotations

from abc import abstractmethod

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult


class GraphPass(InPlacePass):
    """A pass that counts its edits."""

    @abstractmethod
    def edit(self, model: ir.Model) -> int:
        """Edit `model` and return the number of edits."""

    def call(self, model: ir.Model) -> PassResult:
        """Run the pass, as `onnx_ir.passes` asks for it."""
        return PassResult(model, modified=self.edit(model) > 0)
