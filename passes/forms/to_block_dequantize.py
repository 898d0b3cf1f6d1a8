"""MatMulNBits and GatherBlockQuantized become MatMul and Gather of a blockwise DequantizeLinear.

    MatMulNBits(x, B)            ->   MatMul(x, DequantizeLinear(codes))
    MatMulNBits(x, B, bias)      ->   Gemm(x, .., bias), or MatMul and Add where x may be no matrix
    GatherBlockQuantized(B, i)   ->   Gather(DequantizeLinear(codes), i)

A product that has its codes in common with a table reads them through a Transpose. Every node has
a DequantizeLinear of its own: runtimes fuse those that have one reader.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, all_graphs, remove, replace_output
from onnxq.passes.forms import packed, plain
from onnxq.passes.forms.constants import Constants
from onnxq.passes.forms.stored import StoredMatrix, without_suffix
from onnxq.passes.prepare.raise_opset import RaiseOpset
from onnxq.passes.remove_unused import RemoveUnused


class ToBlockDequantize(GraphPass):
    """Convert every product and table in the form of MatMulNBits.

    Attributes:
        notes: What the new form has no place for, in words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`.

        Raises:
            ModelError: A node has what the other form has not.
        """
        if not (widths := [packed.bits_of(node) for node in _nodes(model)]):
            return 0
        RaiseOpset(max(map(plain.opset, widths)))(model)
        matrices = {node: packed.read(node) for node in _nodes(model)}
        by_rows = {m.key for node, m in matrices.items() if packed.is_table(node)}
        constants = Constants(model, matrices.values())
        for node, matrix in matrices.items():
            rows = matrix.key in by_rows
            values = constants.of(matrix, "", plain.tensors(matrix, by_rows=rows))
            if level := node.attributes.get_int("accuracy_level", 0):
                self.notes.append(
                    f"{node.op_type} '{node.name}' had accuracy_level {level}, which "
                    "DequantizeLinear has no place for: the product is in the activation's type"
                )
            _replace(constants.editor, node, matrix, values, by_rows=rows)
        RemoveUnused()(model)
        return len(matrices)


def _nodes(model: ir.Model) -> list[ir.Node]:
    return [node for graph in all_graphs(model) for node in graph if packed.is_packed(node)]


def _replace(
    editor: Editor, node: ir.Node, matrix: StoredMatrix, values: list[ir.Value], *, by_rows: bool
) -> None:
    name = without_suffix(node.name, f"_{node.op_type}")
    old = node.outputs[0]

    def new(op_type: str, inputs: list[ir.Value | None], label: str, **more: int) -> ir.Value:
        return editor.node(
            op_type, inputs, name=label, before=node, attributes=more, dtype=matrix.dtype
        )

    weight = new(
        "DequantizeLinear",
        [*values],
        f"{name}_weight_DequantizeLinear",
        axis=1 if by_rows else 0,
        block_size=matrix.block_size,
    )
    weight.shape = values[0].shape
    if packed.is_table(node):
        output = main = new("Gather", [weight, node.inputs[1]], name, axis=0)
    else:
        x, bias = node.inputs[0], node.inputs[5] if len(node.inputs) > 5 else None
        is_matrix = x is not None and x.shape is not None and len(x.shape) == 2
        if by_rows and not (bias is not None and is_matrix):
            weight = new("Transpose", [weight], f"{name}_weight_Transpose")
        if bias is not None and is_matrix:
            output = main = new("Gemm", [x, weight, bias], name, transB=int(by_rows))
        else:
            output = main = new("MatMul", [x, weight], name)
            if bias is not None:
                output = new("Add", [output, bias], f"{name}_bias")
    producer = main.producer()
    assert producer is not None
    producer.metadata_props.update(node.metadata_props)
    replace_output(old, output)
    remove([node])
