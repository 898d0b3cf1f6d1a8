"""Make one op of a product of matrices and its bias.

    MatMul(A, B) + c = Gemm(A, B, c)        for A of two dimensions, and c [N] or [1, N]

Runtimes do this by themselves, some before they look for what is quantized, and with any c.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import (
    Editor,
    all_graphs,
    constant,
    constant_array,
    graph_of,
    remove,
    replace_output,
)


class FuseGemm(GraphPass):
    """A MatMul by a constant matrix, to which one Add adds, becomes a Gemm.

    It takes in what is added if that is a constant row. How many dimensions other products have is
    noted, where it can be inferred, for what depends on it later.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor = Editor(model)
        products = [n for g in all_graphs(model) for n in g if _is_product(n)]
        noted = _note_shapes(model, products)
        return noted + sum(_fuse(node, editor) for node in products)


def _is_product(node: ir.Node) -> bool:
    """Whether `node` is a MatMul by a constant, or by the transpose of one."""
    if node.op_type != "MatMul" or node.domain:
        return False
    weight = node.inputs[1]
    transpose = weight.producer() if weight is not None else None
    if transpose is not None and transpose.op_type == "Transpose":
        weight = transpose.inputs[0]
    return constant(weight) is not None


def _note_shapes(model: ir.Model, products: list[ir.Node]) -> int:
    """Infer how many dimensions `products` have, where that is not known."""
    unknown = [node for node in products if node.outputs[0].shape is None]
    if not unknown:
        return 0
    inference = common.ShapeInferencePass(check_type=False, strict_mode=False)
    inferred = inference(model.clone()).model.graph
    values = {v.name: v for v in inferred.inputs}
    values |= {v.name: v for node in inferred.all_nodes() for v in node.outputs}
    noted = 0
    for node in unknown:
        left, weight = (None if v is None else values.get(v.name, v) for v in node.inputs)
        rank, columns = _rank(left), _columns(weight)
        if rank is not None and columns is not None and weight is not None:
            node.outputs[0].shape = ir.Shape([*[None] * (rank - 1), columns])
            node.outputs[0].type = weight.type
            noted += 1
    return noted


def _rank(value: ir.Value | None) -> int | None:
    """How many dimensions `value` has, of a Reshape as many as its target has numbers."""
    if value is None or value.shape is not None:
        return None if value is None or value.shape is None else len(value.shape)
    node = value.producer()
    if node is None or node.op_type != "Reshape" or node.domain:
        return None
    target = node.inputs[1]
    length = None if target is None or target.shape is None else target.shape[0]
    return length if isinstance(length, int) else None


def _fuse(node: ir.Node, editor: Editor) -> bool:
    product, columns = node.outputs[0], _columns(node.outputs[0])
    uses = product.uses()
    if columns is None or len(uses) != 1 or product.is_graph_output():
        return False
    adder, index = next(iter(uses))
    if adder.op_type != "Add" or adder.domain or adder.graph is not node.graph:
        return False
    bias = adder.inputs[1 - index]
    row = constant_array(bias)
    takes_in = row is not None and row.shape in ((columns,), (1, columns))
    if row is not None and takes_in and row.ndim == 2:
        bias = editor.initializer(graph_of(node), f"{node.name}_bias", row.reshape(-1))
    result = editor.node(
        "Gemm",
        [*node.inputs, bias] if takes_in else node.inputs,
        name=f"{node.name}_Gemm",
        before=node,
        dtype=product.dtype,
    )
    replace_output(adder.outputs[0] if takes_in else product, result)
    remove([adder, node] if takes_in else [node])
    gemm = result.producer()
    assert gemm is not None
    gemm.name = node.name
    return True


def _columns(value: ir.Value | None) -> int | None:
    """The number of columns of a matrix."""
    if value is None or value.shape is None or len(value.shape) != 2:
        return None
    columns = value.shape[1]
    return columns if isinstance(columns, int) else None
