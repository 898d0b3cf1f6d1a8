r"""Residual sums whose skipped operand is read in the codes that are there anyway.

    r -> QuantizeLinear -> DequantizeLinear --> Conv -> ... -> Conv --> Add
                                            \-------------------------/

If nothing reads r but ops in low precision and the Add, r need not be written in float at all: the
kernel of the Add reads codes and, where its result is quantized in turn, writes codes.
(NVIDIA, "Working with Quantized Types", TensorRT documentation: quantize the residual input.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq import formats
from onnxq.passes.edit import constant
from onnxq.types import QuantSpec

if TYPE_CHECKING:
    from onnxq.passes.plan import PlannedOp

# What may stand between a product and the sum: its bias and its activation function.
_BEHIND = (
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh"),
    *("Softplus", "Gelu", "Mish", "Erf", "Add", "Sub", "Mul", "Div"),
)


@dataclass(frozen=True)
class Residual:
    """An Add that reads one operand in low precision.

    Attributes:
        node: Its name.
        index: Of the input that is read in codes.
        value: The name of what it reads there.
        activation: How that is quantized.
    """

    node: str
    index: int
    value: str
    activation: QuantSpec

    @property
    def precision(self) -> str:
        """What is read, in short: "int8" or "fp8"."""
        return formats.get(self.activation.format).short


def residuals(
    ops: Iterable[PlannedOp], nodes: Mapping[str, ir.Node]
) -> list[tuple[Residual, ir.Node]]:
    """The sums that read in codes what planned ops read in the same codes, and nothing else does.

    Args:
        ops: What is planned.
        nodes: The nodes of these ops, by name.
    """
    planned = {nodes[op.node]: op for op in ops if not op.is_table and op.activation is not None}
    read = {node.inputs[op.operands.activation]: op.activation for node, op in planned.items()}
    found: dict[str, tuple[Residual, ir.Node]] = {}
    for value, spec in read.items():
        if value is None or spec is None or value.producer() is None or value.is_graph_output():
            continue
        sums = [use for use in value.uses() if use.node not in planned]
        alike = all(planned[u.node].activation == spec for u in value.uses() if u not in sums)
        if alike and all(_is_residual(node, index, planned) for node, index in sums):
            for node, index in sums:
                name = node.name or ""
                found[name] = (Residual(name, index, value.name or "", spec), node)
    return list(found.values())


def _is_residual(node: ir.Node, index: int, planned: Mapping[ir.Node, PlannedOp]) -> bool:
    """Whether `node` adds to its input `index` what a planned op gives, and it alone reads that."""
    if node.op_type != "Add" or node.domain:
        return False
    other = node.inputs[1 - index]
    if other is None or len(other.uses()) > 1 or other.is_graph_output():
        return False
    products = list(_products(other, planned))
    return len({*products}) == 1 and products[0] is not None


def _products(
    value: ir.Value | None, planned: Mapping[ir.Node, PlannedOp]
) -> Iterator[ir.Node | None]:
    """The planned ops that `value` is a function of, element by element; None for anything else."""
    node = None if value is None else value.producer()
    if node in planned:
        yield node
    elif node is None or node.op_type not in _BEHIND or node.domain:
        yield None
    else:
        computed = [each for each in node.inputs if each is not None and constant(each) is None]
        for each in computed:
            yield from _products(each, planned)
