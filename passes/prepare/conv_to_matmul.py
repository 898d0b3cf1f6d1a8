"""Make a product of matrices of a Conv with a kernel of size 1.

    Conv(x, w, c)   ->   Transpose(MatMul(Transpose(x), Transpose(w)) + c)

with channels last in between, and w [N, K]. A Conv right behind another reads what that had before
it moved its channels back. Signals, [B, K, L], become images of height 1: TensorRT dequantizes the
weights of some products of three dimensions, as of those before a Relu.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, all_graphs, remove, replace_output
from onnxq.passes.pointwise import refusal
from onnxq.recipe import Recipe
from onnxq.targets import WeightOnlySupport
from onnxq.views import view


class ConvToMatMul(GraphPass):
    """Each Conv that `onnxq.passes.pointwise` finds becomes a MatMul with its name.

    Args:
        recipe: Asks for it.
        support: What the target runs.
    """

    def __init__(self, recipe: Recipe, support: WeightOnlySupport) -> None:
        super().__init__()
        self._recipe = recipe
        self._support = support

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        found = [
            node
            for graph in all_graphs(model)
            for node in graph
            if node.op_type == "Conv"
            and not node.domain
            and refusal(node, self._recipe, self._support) is None
        ]
        weights = {node.inputs[1] for node in found}
        editor, matrices = Editor(model), dict[ir.Value, ir.Value]()
        for node in found:
            _replace(node, editor, matrices)
        for weight in weights:
            if weight is not None and weight.name and not weight.uses():
                model.graph.initializers.pop(weight.name, None)
        return len(found)


@dataclass(frozen=True)
class _Before:
    """Writes nodes before another, which is about to be replaced."""

    editor: Editor
    node: ir.Node

    def __call__(
        self, op_type: str, *inputs: ir.Value | None, perm: list[int] | None = None
    ) -> ir.Value:
        return self.editor.node(
            op_type,
            inputs,
            name=f"{self.node.name}_{op_type}",
            before=self.node,
            attributes=None if perm is None else {"perm": perm},
            dtype=self.node.outputs[0].dtype,
        )


def _replace(node: ir.Node, editor: Editor, matrices: dict[ir.Value, ir.Value]) -> None:
    before, name = _Before(editor, node), node.name
    source, weight = node.inputs[:2]
    assert source is not None
    assert weight is not None
    assert weight.const_value is not None
    outputs, inputs, *kernel = weight.const_value.shape.numpy()
    if weight not in matrices:
        matrix = view(weight.const_value, (outputs, inputs))
        matrices[weight] = editor.initializer(editor.model.graph, f"{weight.name}_matrix", matrix)
    columns = before("Transpose", matrices[weight], perm=[1, 0])
    is_signal = len(kernel) == 1
    if is_signal:
        height = editor.initializer(editor.model.graph, f"{name}_height", np.array([2]))
        source = before("Unsqueeze", source, height)
    rank = max(4, 2 + len(kernel))
    rows = _channels_last(source, rank) or before("Transpose", source, perm=_last(rank))
    result = before("MatMul", rows, columns)
    product = result.producer()
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = before("Add", result, node.inputs[2])
    result = before("Transpose", result, perm=_first(rank))
    if is_signal:
        result = before("Squeeze", result, height)
    replace_output(node.outputs[0], result)
    remove([node])
    assert product is not None
    product.name = name


def _last(rank: int) -> list[int]:
    return [0, *range(2, rank), 1]


def _first(rank: int) -> list[int]:
    return [0, rank - 1, *range(1, rank - 1)]


def _channels_last(value: ir.Value, rank: int) -> ir.Value | None:
    """What `value` was before its channels were moved to the second axis, if they were."""
    node = value.producer()
    if node is None or node.op_type != "Transpose" or node.domain:
        return None
    perm = [*node.attributes.get_ints("perm", [])]
    return node.inputs[0] if perm == _first(rank) else None
