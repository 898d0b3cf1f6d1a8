"""The initializers of a model that is converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from onnxq.passes.edit import Editor, Names
from onnxq.passes.forms.stored import Key, StoredMatrix


class Constants:
    """The matrices of one model in their new form, each stored once, under the names of the old.

    Args:
        model: To be converted.
        matrices: All that will be.

    Attributes:
        editor: Of the model.
    """

    def __init__(self, model: ir.Model, matrices: Iterable[StoredMatrix]) -> None:
        names = Names(model)
        for value in {value for matrix in matrices for value in matrix.key if value is not None}:
            value.name = names.new(f"{value.name}_before")
        self.editor = Editor(model)
        self._stored: dict[tuple[Key, str], list[ir.Value]] = {}

    def of(
        self, matrix: StoredMatrix, layout: str, tensors: Mapping[str, ir.LazyTensor]
    ) -> list[ir.Value]:
        """The initializers of `matrix` in `layout`, made of `tensors` when first asked for."""
        key = (matrix.key, layout)
        if key not in self._stored:
            graph = self.editor.model.graph
            self._stored[key] = [
                self.editor.initializer(graph, f"{matrix.name}_{word}", tensor)
                for word, tensor in tensors.items()
            ]
        return self._stored[key]
