"""Make a product for each expert of a MatMul by a constant stack of matrices.

    MatMul(x, w)   ->   Concat(MatMul(x_0, w_0), MatMul(x_1, w_1) ...)

with x cut along the experts, where it is not the same for all of them: see `onnxq.passes.stacks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, all_graphs, remove, replace_output
from onnxq.passes.remove_unused import RemoveUnused
from onnxq.passes.stacks import Stack, expert_axis, split_refusal, stack_of
from onnxq.recipe import Recipe
from onnxq.targets import WeightOnlySupport
from onnxq.views import view


class SplitExperts(GraphPass):
    """Each MatMul by a stack becomes MatMuls by matrices, named after it and the expert.

    Args:
        recipe: What is asked for.
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
            if stack_of(node) and split_refusal(node, self._recipe, self._support) is None
        ]
        split = _Split(Editor(model), {})
        for node in found:
            split(node)
        if found:
            RemoveUnused()(model)
        return len(found)


@dataclass(frozen=True)
class _Split:
    """Of one model.

    Attributes:
        editor: Of the model.
        matrices: Those of each stack.
    """

    editor: Editor
    matrices: dict[ir.Value, list[ir.Value]]

    def __call__(self, node: ir.Node) -> None:
        source, stack = node.inputs[0], stack_of(node)
        assert source is not None
        assert stack is not None
        experts = self._experts(node, stack)
        source = _unexpanded(source)
        rank = None if source.shape is None else len(source.shape)
        products = [
            self.editor.node(
                "MatMul",
                [part, matrix],
                name=f"{node.name}_expert_{index}",
                before=node,
                dtype=node.outputs[0].dtype,
            )
            for index, (part, matrix) in enumerate(
                zip(self._parts(node, source, len(experts)), experts, strict=True)
            )
        ]
        if rank == 2:
            products = [self._unsqueezed(node, product) for product in products]
        joined = self.editor.node(
            "Concat",
            products,
            name=f"{node.name}_Concat",
            before=node,
            attributes={"axis": -3},
            dtype=node.outputs[0].dtype,
        )
        replace_output(node.outputs[0], joined)
        remove([node])

    def _experts(self, node: ir.Node, stack: Stack) -> list[ir.Value]:
        if stack.value not in self.matrices:
            experts, *shape = stack.tensor.shape.numpy()
            size = shape[0] * shape[1]
            self.matrices[stack.value] = [
                self.editor.initializer(
                    self.editor.model.graph,
                    f"{stack.value.name}_expert_{index}",
                    view(stack.tensor, shape, index * size),
                )
                for index in range(experts)
            ]
        matrices = self.matrices[stack.value]
        return [self._transposed(node, each) for each in matrices] if stack.transposed else matrices

    def _transposed(self, node: ir.Node, matrix: ir.Value) -> ir.Value:
        name = f"{matrix.name}_Transpose"
        perm = {"perm": [1, 0]}
        return self.editor.node(
            "Transpose", [matrix], name=name, before=node, attributes=perm, dtype=matrix.dtype
        )

    def _parts(self, node: ir.Node, source: ir.Value, experts: int) -> list[ir.Value]:
        """What each expert reads of `source`."""
        if expert_axis(source, experts) == 0:
            return [source] * experts
        sizes = self.editor.initializer(
            self.editor.model.graph, f"{node.name}_sizes", np.ones(experts, np.int64)
        )
        first = self.editor.node(
            "Split",
            [source, sizes],
            name=f"{node.name}_Split",
            before=node,
            num_outputs=experts,
            attributes={"axis": -3},
            dtype=source.dtype,
        )
        split = first.producer()
        assert split is not None
        if source.dtype is not None:
            for output in split.outputs:
                output.dtype = source.dtype
        return list(split.outputs)

    def _unsqueezed(self, node: ir.Node, product: ir.Value) -> ir.Value:
        axis = self.editor.initializer(self.editor.model.graph, f"{node.name}_axis", np.array([0]))
        name = f"{node.name}_Unsqueeze"
        return self.editor.node(
            "Unsqueeze", [product, axis], name=name, before=node, dtype=product.dtype
        )


def _unexpanded(value: ir.Value) -> ir.Value:
    """What `value` repeats for each expert, if it does nothing else; else `value` itself."""
    node = value.producer()
    if node is None or node.op_type != "Expand" or node.domain:
        return value
    source = node.inputs[0]
    if source is None or source.shape is None or value.shape is None:
        return value
    before, after = source.shape, value.shape
    same = len(before) == len(after) >= 3 and _others(before) == _others(after)
    return source if same and before[-3] == 1 else value


def _others(shape: ir.Shape) -> list[int | ir.SymbolicDim]:
    """All dimensions but that of the experts."""
    return [*shape[:-3], *shape[-2:]]
