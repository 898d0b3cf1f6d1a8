"""One matrix for a table and the head of a model, where an exporter wrote it twice.

    x = Gather(W, ids) ... y = MatMul(h, V)    with V = W^T    ->    y = MatMul(h, Transpose(W))

or with V = W, which is read as V was. Then both are quantized as one: see `onnxq.passes.ties`. What
two matrices hold is compared a part at a time, up to the first difference.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxq.onnxfile import release
from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, constant, rewire
from onnxq.passes.ties import readers
from onnxq.types import Array
from onnxq.weightfile import WeightInFile

_SMALL = 1 << 16  # elements: what is smaller is no matter
_PART = 256  # rows that are compared at once
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class StoreOnce(GraphPass):
    """Ops read a table where they read a copy of it, or its transpose.

    Matrices that two products read stay apart: a target may run but one of those with codes.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        matrices = [value for value in model.graph.initializers.values() if _is_matrix(value)]
        merged: set[ir.Value] = set()
        for table in filter(_is_table, matrices):
            for other in matrices:
                if other is table or table in merged or other in merged:
                    continue
                if _products(table) + _products(other) <= 1 and _merge(model, table, other):
                    merged.add(other)
        return len(merged)


def _merge(model: ir.Model, table: ir.Value, other: ir.Value) -> bool:
    one, two = constant(table), constant(other)
    assert one is not None and two is not None
    if one.dtype != two.dtype:
        return False
    shape, again = one.shape.numpy(), two.shape.numpy()
    if shape == again and _same(one, two, transposed=False):
        rewire(other.uses(), table)
        return True
    if shape[::-1] != again or _is_table(other) or not _same(one, two, transposed=True):
        return False
    view = Editor(model).node(
        "Transpose",
        [table],
        name=f"{other.name}_Transpose",
        graph=model.graph,
        attributes={"perm": [1, 0]},
        dtype=one.dtype,
        shape=other.shape,
    )
    rewire(other.uses(), view)
    return True


def _is_matrix(value: ir.Value) -> bool:
    tensor = constant(value)
    if tensor is None or value.is_graph_output() or not value.uses():
        return False
    computed = isinstance(tensor, ir.LazyTensor) and not isinstance(tensor, WeightInFile)
    shape = tensor.shape.numpy()
    return (
        len(shape) == 2 and math.prod(shape) >= _SMALL and tensor.dtype in _FLOATS and not computed
    )


def _is_table(value: ir.Value) -> bool:
    return any(
        node.op_type == "Gather" and index == 0 and node.attributes.get_int("axis", 0) in (0, -2)
        for node, index in value.uses()
    )


def _products(value: ir.Value) -> int:
    return sum(node.op_type != "Gather" for node in readers(value))


def _same(one: ir.TensorProtocol, two: ir.TensorProtocol, *, transposed: bool) -> bool:
    """Whether the bits of two matrices are the same."""
    rows = one.shape.numpy()[0]
    for first in range(0, rows, _PART):
        part = slice(first, first + _PART)
        if not np.array_equal(_part(one, part), _part(two, part, transposed=transposed)):
            return False
    return True


def _part(tensor: ir.TensorProtocol, rows: slice, *, transposed: bool = False) -> Array:
    """Some rows as they are stored, or some columns as rows; no more is in memory."""
    array = tensor.mapped() if isinstance(tensor, WeightInFile) else tensor.numpy()
    part = array[:, rows].T if transposed else array[rows]
    copy = np.array(part, order="C").view(np.dtype(f"uint{8 * array.itemsize}"))
    del array, part
    release(tensor)
    return copy
