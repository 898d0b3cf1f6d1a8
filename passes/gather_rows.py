"""Rows of a table of codes, gathered before they are dequantized.

    y = Gather(W, i)   ->   y = Cast(Gather(codes, i)) * Unsqueeze(Gather(scale, i))

with one scale per row. ONNX Runtime would dequantize the whole table in every inference if a
DequantizeLinear came first: 2.5 ms instead of 0.02 ms for 128 rows of a table [30522, 384].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxq.passes.edit import Editor, remove, replace_output


def gather_rows(editor: Editor, node: ir.Node, codes: ir.Value, scale: ir.Value) -> None:
    """Replace the Gather `node` of a float table.

    Args:
        editor: Of the model.
        node: Its name goes on to the Gather of codes; its output keeps its name, type and shape.
        codes: [rows, row length].
        scale: Floats [rows].
    """
    table, indices = node.inputs
    unit = scale.dtype or ir.DataType.FLOAT
    dtype = table.dtype if table is not None and table.dtype is not None else unit
    last = editor.initializer(editor.model.graph, f"{node.name}_axis", np.array([-1]))
    rows = _before(editor, node, "Gather", [codes, indices], codes.dtype)
    scales = _before(editor, node, "Gather", [scale, indices], unit)
    scales = _before(editor, node, "Unsqueeze", [scales, last], unit)
    output = _before(editor, node, "Cast", [rows], unit)
    output = _before(editor, node, "Mul", [output, scales], unit)
    if dtype != unit:
        output = _before(editor, node, "Cast", [output], dtype)
    replace_output(node.outputs[0], output)
    remove([node])
    gather = rows.producer()
    assert gather is not None
    gather.name = node.name


def _before(
    editor: Editor,
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    dtype: ir.DataType | None,
) -> ir.Value:
    attributes: dict[str, int | float | str] = {}
    if op_type == "Cast":
        attributes["to"] = int(dtype or ir.DataType.FLOAT)
    return editor.node(
        op_type,
        inputs,
        name=f"{node.name}_{op_type}",
        before=node,
        attributes=attributes,
        dtype=dtype,
    )
