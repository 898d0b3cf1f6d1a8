"""Gather of rows of a constant table [rows, row length]: an embedding."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxq.passes.edit import constant
from onnxq.passes.qdq.rules.base import TABLE, Operands, find_weight, shape
from onnxq.targets import No

# Codes take the place of one op by up to five; from a quarter of a megabyte on, that pays.
_SMALL = 1 << 16


def describe(node: ir.Node) -> Operands | No:
    """See `onnxq.passes.qdq.rules`."""
    if constant(node.inputs[0]) is None:
        return No("it gathers from what is computed at run time, not from a constant table")
    table = find_weight(node.inputs[0])
    if isinstance(table, No):
        return table
    sizes, axis = shape(table), node.attributes.get_int("axis", 0)
    if len(sizes) != 2:
        return No(f"its table has {len(sizes)} dimensions; a matrix is needed")
    if axis not in (0, -2):
        return No(f"it gathers columns (axis {axis}), which share no scale; rows are needed")
    if math.prod(sizes) < _SMALL:
        return No(f"its table has fewer than {_SMALL} weights: the ops for codes cost more")
    return Operands(
        kind=TABLE,
        activation=1,
        weight_index=0,
        weight=table.value,
        transposed=False,
        output_axis=0,
        reduced_axis=1,
        bias_index=None,
        channel_axis=-1,
    )


RULE = describe
