"""Weights of ops that compute in float, stored in codes.

    codes -> Cast -> Mul by the scales -> op

ONNX Runtime computes the Cast and the Mul once, when it loads the model: the op is as fast as with
a float weight, and the file holds 8 bits a weight. A DequantizeLinear in their place it would
compute in every inference, because it keeps those for fusions.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes import weights
from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, all_graphs, graph_of
from onnxq.passes.qdq.rules import Operands, describe
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.targets import No
from onnxq.types import PerAxis, QuantSpec

_SPEC = "int8"
_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class StoreCodes(GraphPass):
    """Store the weights of products in int8, with one scale per output.

    A weight that another op reads too, or that is read through a Transpose, stays as it is.

    Args:
        nodes: The names of the products.
    """

    def __init__(self, nodes: Collection[str]) -> None:
        super().__init__()
        self._nodes = set(nodes)

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor = Editor(model)
        found = [n for g in all_graphs(model) for n in g if n.name in self._nodes]
        return sum(_store(editor, node) for node in found)


def can_store(node: ir.Node) -> bool:
    """Whether the weight of `node` would be stored in codes."""
    return _operands(node) is not None


def _operands(node: ir.Node) -> Operands | None:
    if node.op_type not in _OPS or node.domain:
        return None
    operands = describe(node)
    if isinstance(operands, No) or operands.transposed or len(operands.weight.uses()) > 1:
        return None
    return operands


def _store(editor: Editor, node: ir.Node) -> bool:
    operands = _operands(node)
    if operands is None:
        return False
    value, axis, graph = operands.weight, operands.output_axis, graph_of(node)
    source = value.const_value
    assert source is not None
    shape = tuple(source.shape.numpy())
    spec = QuantSpec(_SPEC, PerAxis(axis))
    lazy = LazyWeight(source, spec, weights.get("rtn"))
    along = tuple(size if i == axis else 1 for i, size in enumerate(shape))
    codes = lazy.part(lambda quantized: quantized.codes, formats.get(_SPEC).dtype, shape)
    scales = lazy.part(
        lambda quantized: quantized.params.scale.reshape(along).astype(np.float32),
        source.dtype,
        along,
    )
    as_float = editor.node(
        "Cast",
        [editor.initializer(graph, f"{value.name}_codes", codes)],
        name=f"{node.name}_weight_Cast",
        before=node,
        attributes={"to": int(source.dtype)},
        dtype=source.dtype,
        shape=value.shape,
    )
    weight = editor.node(
        "Mul",
        [as_float, editor.initializer(graph, f"{value.name}_codes_scale", scales)],
        name=f"{node.name}_weight_Mul",
        before=node,
        dtype=source.dtype,
        shape=value.shape,
    )
    node.replace_input_with(operands.weight_index, weight)
    return True
