"""Tables whose weight another op reads too: one matrix of codes serves both, or none.

A language model often looks its tokens up in the same matrix that its head multiplies by:

    x = Gather(W, ids) ... y = MatMul(h, Transpose(W))

A row of the table is an output of the head, so scales that are good for one are good for both, and
the head, of which more is asked, decides on the codes. Where another op reads the table in float,
codes would only come on top of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq import formats
from onnxq.types import PerAxis, PerBlock, QuantSpec

if TYPE_CHECKING:
    from onnxq.passes.plan import PlannedOp


def readers(weight: ir.Value) -> Iterator[ir.Node]:
    """What reads `weight`, through a Transpose or not, once for each input."""
    for node, _ in weight.uses():
        if node.op_type == "Transpose":
            yield from (reader for reader, _ in node.outputs[0].uses())
        else:
            yield node


def tie(
    ops: Sequence[PlannedOp], tied_bits: Sequence[int] | None = None
) -> tuple[list[PlannedOp], dict[str, str]]:
    """Let planned tables have the codes of the products that read the same weight.

    Args:
        ops: As planned.
        tied_bits: The widths of codes that both can read, None for all; of others, each has codes
            of its own.

    Returns:
        The ops, without the tables that have to stay in float; and those, by the name of the node,
        each with its reason.
    """
    by_node = {op.node: op for op in ops}
    reasons: dict[str, str] = {}
    for table in (op for op in ops if op.is_table):
        others = [node for node in readers(table.operands.weight) if node.name != table.node]
        in_float = [node for node in others if (node.name or "") not in by_node]
        if in_float:
            reasons[table.node] = (
                f"{in_float[0].op_type} '{in_float[0].name}' reads its table in float, and codes "
                "would come on top of it"
            )
            continue
        products = [by_node[node.name or ""] for node in others]
        model = next((op for op in products if not op.is_table and _rows(op, tied_bits)), None)
        if model is None:
            continue
        alike = (model.weight, model.choices, model.algorithm)
        rows = _rows(model, tied_bits)
        by_node[table.node] = _with_rows_of(model, rows, table)
        for op in products:
            if (op.weight, op.choices, op.algorithm) == alike:
                by_node[op.node] = _with_rows_of(model, rows, op)
    return [op for name, op in by_node.items() if name not in reasons], reasons


def _with_rows_of(model: PlannedOp, rows: Sequence[QuantSpec], op: PlannedOp) -> PlannedOp:
    return replace(
        op,
        weight=model.weight if model.weight in rows else rows[0],
        choices=tuple(rows) if model.choices else (),
        algorithm=model.algorithm,
        tied=True,
    )


def _rows(op: PlannedOp, tied_bits: Sequence[int] | None) -> list[QuantSpec]:
    """The specs of a product whose codes can be read by rows, which are its outputs."""
    if op.operands.output_axis != 0:
        return []
    specs = op.choices or (op.weight,)
    if tied_bits is not None:
        specs = tuple(spec for spec in specs if formats.get(spec.format).bits in tied_bits)
    return [spec for spec in specs if _are_rows(spec, op.operands.weight)]


def _are_rows(spec: QuantSpec, weight: ir.Value) -> bool:
    granularity = spec.granularity
    if not isinstance(granularity, PerBlock):
        return granularity == PerAxis(0)
    if isinstance(formats.get(spec.format), formats.CodebookFormat):
        return False
    assert weight.const_value is not None
    whole = weight.const_value.shape.numpy()[1] % granularity.size == 0
    return granularity.axis == 1 and whole and not spec.float_zero_point
