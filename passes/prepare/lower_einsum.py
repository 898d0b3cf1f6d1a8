"""Make a MatMul of an Einsum by a constant that is one.

    Einsum("tk,ekn->etn", x, W) = MatMul(x, W)      Einsum("btk,nk->btn", x, W) = MatMul(x, W^T)

One index is summed over, the last of x; the result ends with the last but one of x and the other
one of the matrix; what else W has lies before, in the order of the result, as in x.
"""

from __future__ import annotations

import re

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, all_graphs, constant, remove, replace_output

_EQUATION = re.compile(r"([A-Za-z]{2,}),([A-Za-z]{2,})->([A-Za-z]{2,})")


class LowerEinsum(GraphPass):
    """Products with weights are what planning knows them as."""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor, count = Editor(model), 0
        for node in [node for graph in all_graphs(model) for node in graph]:
            transposed = _needs_transpose(node)
            if transposed is not None:
                _replace(node, editor, transposed=transposed)
                count += 1
        return count


def _needs_transpose(node: ir.Node) -> bool | None:
    """Whether the weight of `node` is to be transposed for a MatMul; None if it is no MatMul."""
    if node.op_type != "Einsum" or node.domain or len(node.inputs) != 2:
        return None
    equation = _EQUATION.fullmatch(node.attributes.get_string("equation", "").replace(" ", ""))
    if equation is None or constant(node.inputs[1]) is None:
        return None
    x, w, y = equation.groups()
    if any(len(set(term)) < len(term) for term in (x, w, y)):
        return None
    rows, inner, columns = x[-2], x[-1], y[-1]
    batch = y[:-2]
    fits = y[-2] == rows and inner not in y and columns not in x and rows not in w
    if not fits or not batch.endswith(x[:-2]) or not batch.endswith(w[:-2]):
        return None
    if batch not in (x[:-2], w[:-2]):
        return None
    if w[-2:] == inner + columns:
        return False
    return True if w == columns + inner else None


def _replace(node: ir.Node, editor: Editor, *, transposed: bool) -> None:
    activation, weight = node.inputs
    dtype = node.outputs[0].dtype
    if transposed:
        weight = editor.node(
            "Transpose",
            [weight],
            name=f"{node.name}_Transpose",
            before=node,
            attributes={"perm": [1, 0]},
            dtype=dtype,
        )
    result = editor.node(
        "MatMul", [activation, weight], name=f"{node.name}_MatMul", before=node, dtype=dtype
    )
    product = result.producer()
    replace_output(node.outputs[0], result)
    remove([node])
    assert product is not None
    product.name = node.name
