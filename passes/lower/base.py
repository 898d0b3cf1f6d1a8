"""What a lowering is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import onnx_ir as ir

from onnxq.passes.edit import Editor
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight


class Lowering(ABC):
    """Writes ops of one model in one form.

    Args:
        editor: Of the model.
        stored: The initializers that hold each weight, shared with the other forms of the model.

    Attributes:
        opset: The lowest version of the default operator set that has what it writes.
    """

    opset: ClassVar[int]

    def __init__(self, editor: Editor, stored: dict[LazyWeight, list[ir.Value]]) -> None:
        self.editor = editor
        self._stored = stored

    @abstractmethod
    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """Replace `node`, whose weight is `lazy`; its output keeps its name, type and shape."""

    def constants(self, op: PlannedOp, lazy: LazyWeight) -> list[ir.Value]:
        """The initializers that hold the weight, made when first asked for."""
        if lazy not in self._stored:
            name = op.operands.weight.name
            self._stored[lazy] = [
                self.editor.initializer(self.editor.model.graph, f"{name}_{part}", tensor)
                for part, tensor in self.parts(op, lazy).items()
            ]
        return self._stored[lazy]

    @abstractmethod
    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """The tensors that hold the weight, by a word for each, in the order of the inputs."""
