"""The places where a value is turned at run time: nodes for it, and who reads what.

x -> x (L (x) R):    each row of x as a matrix X, L^T X R, and a row again
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import Editor, rewire
from onnxq.passes.transforms.hadamard import Rotation


class Places:
    """Of one model.

    Args:
        editor: Of the model.

    Attributes:
        nodes: The names of the nodes that are new.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self.nodes: list[str] = []

    def turned(self, value: ir.Value, matrix: Rotation) -> ir.Value:
        """What `value` is when it is turned, at run time."""
        assert value.dtype is not None
        graph, dtype = self._editor.model.graph, value.dtype.numpy()
        shape = self.node("Shape", [value], value, value, ir.DataType.INT64)
        sizes = np.array([-1, len(matrix.left), len(matrix.right)])
        seen, left, right = (
            self._editor.initializer(graph, f"{value.name}_{word}", array)
            for word, array in (
                ("seen", sizes),
                ("left", matrix.left.T.astype(dtype)),
                ("right", matrix.right.astype(dtype)),
            )
        )
        apart = self.node("Reshape", [value, seen], value, shape)
        apart = self.node("MatMul", [apart, right], value, apart)
        apart = self.node("MatMul", [left, apart], value, apart)
        return self.node("Reshape", [apart, shape], value, apart)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        like: ir.Value,
        after: ir.Value,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """A node behind the one that makes `after`, or at the start of the graph."""
        output = self._editor.node(
            op_type,
            inputs,
            name=f"{like.name}_turned_{op_type}",
            after=after.producer(),
            graph=self._editor.model.graph,
            dtype=dtype or like.dtype,
        )
        node = output.producer()
        assert node is not None
        self.nodes.append(node.name or "")
        return output

    def hand_on(
        self, old: ir.Value, new: ir.Value, except_for: Sequence[tuple[ir.Node, int]] = ()
    ) -> None:
        """Let what reads `old` read `new`, but for what makes `new` and some others."""
        mine = new.producer()
        uses = [
            (node, index)
            for node, index in old.uses()
            if node is not mine and node.name not in self.nodes and (node, index) not in except_for
        ]
        rewire(uses, new)

    def hand_out(self, old: ir.Value, new: ir.Value) -> None:
        """Let `new` be the output of the model that `old` is, if it is one."""
        for index, output in enumerate(self._editor.model.graph.outputs):
            if output is old:
                name, shape = old.name, old.shape
                old.name = self._editor.names.new(f"{name}_before")
                new.name, new.shape = name, shape
                self._editor.model.graph.outputs[index] = new
