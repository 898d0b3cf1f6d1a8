"""Products and tables of a blockwise DequantizeLinear become MatMulNBits and GatherBlockQuantized.

The inverse of `onnxq.passes.forms.to_block_dequantize`. Products read the weight straight, where
blocks lie along its first axis, or through a Transpose (or a Gemm's transB), where they lie along
its second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import all_graphs
from onnxq.passes.forms import packed, plain
from onnxq.passes.forms.constants import Constants
from onnxq.passes.forms.stored import StoredMatrix, require
from onnxq.passes.lower.gather_block_quantized import is_typed, write_table
from onnxq.passes.lower.matmul_nbits import write_product
from onnxq.passes.remove_unused import RemoveUnused

_INSTEAD = "Leave the model in this form."


@dataclass(frozen=True)
class _Reader:
    """A product, or a Gather of rows, and the matrix that it reads."""

    node: ir.Node
    matrix: StoredMatrix

    @property
    def is_table(self) -> bool:
        return self.node.op_type == "Gather"


class ToMatMulNBits(GraphPass):
    """Convert every product and table whose weight a blockwise DequantizeLinear makes.

    Attributes:
        notes: What is stored in another way than before, in words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`.

        Raises:
            ModelError: A weight has what the other form has not.
        """
        nodes = [node for graph in all_graphs(model) for node in graph if plain.is_blockwise(node)]
        readers = [reader for node in nodes for reader in _readers(node)]
        multiplied = {reader.matrix.key for reader in readers if not reader.is_table}
        constants = Constants(model, (reader.matrix for reader in readers))
        for node, matrix in ((reader.node, reader.matrix) for reader in readers):
            metadata = node.metadata_props
            if node.op_type == "Gather":
                shared = matrix.key in multiplied
                tied = shared and matrix.length % matrix.block_size == 0
                if shared and not tied:
                    self.notes.append(
                        f"Gather '{node.name}' has codes of its own now: those of MatMulNBits are "
                        f"padded, its rows of {matrix.length} are no blocks of {matrix.block_size}"
                    )
                layout = "product" if tied else "table"
                parts = (
                    plain.tensors(matrix, by_rows=True)
                    if is_typed(matrix.bits, tied=tied)
                    else packed.tensors(matrix, as_matrix=not tied)
                )
                values = constants.of(matrix, layout, parts)
                new = write_table(
                    constants.editor, node, values, matrix.bits, matrix.block_size, tied=tied
                )
            else:
                values = constants.of(matrix, "product", packed.tensors(matrix, as_matrix=False))
                attributes = {
                    "K": matrix.length,
                    "N": matrix.outputs,
                    "bits": matrix.bits,
                    "block_size": matrix.block_size,
                }
                new = write_product(
                    constants.editor, node, node.inputs[0], values, attributes, matrix.dtype
                )
            new.metadata_props.update(metadata)
        RemoveUnused()(model)
        return len(readers)


def _readers(source: ir.Node) -> Iterator[_Reader]:
    """What reads the matrix that `source` dequantizes.

    Raises:
        ModelError: It is none of what the other form is for.
    """
    matrix = plain.read(source)
    for value, transposed in _views(source):
        require(not value.is_graph_output(), source, "it is an output of the model", _INSTEAD)
        for node, index in value.uses():
            if _is_transpose(node):
                continue
            reads = _reads(node, index, by_rows=plain.axis(source) == 1, transposed=transposed)
            what = f"{node.op_type} '{node.name}' reads it"
            found = (
                f"{what}, which has no such form, or not for blocks along axis {plain.axis(source)}"
            )
            require(reads, source, found, _INSTEAD)
            whole = node.op_type != "Gather" or matrix.length * matrix.bits % 8 == 0
            found = f"{what}, and its rows of {matrix.length} codes fill no whole bytes"
            require(whole, source, found, _INSTEAD)
            yield _Reader(node, matrix)


def _views(source: ir.Node) -> Iterator[tuple[ir.Value, bool]]:
    """The matrix as it is, and transposed."""
    output = source.outputs[0]
    yield output, False
    yield from ((node.outputs[0], True) for node, _ in output.uses() if _is_transpose(node))


def _is_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and list(node.attributes.get_ints("perm", [1, 0])) == [1, 0]


def _reads(node: ir.Node, index: int, *, by_rows: bool, transposed: bool) -> bool:
    """Whether `node` multiplies by the matrix along its blocks, or gathers rows that have them."""
    attributes = node.attributes
    if node.domain != "":
        return False
    match node.op_type:
        case "Gather":
            is_rows = attributes.get_int("axis", 0) in (0, -2)
            return index == 0 and is_rows and by_rows and not transposed
        case "MatMul":
            return index == 1 and by_rows == transposed
        case "Gemm":
            turned = transposed != bool(attributes.get_int("transB", 0))
            plain_product = (
                attributes.get_int("transA", 0) == 0
                and attributes.get_float("alpha", 1.0) == 1
                and attributes.get_float("beta", 1.0) == 1
            )
            return index == 1 and by_rows == turned and plain_product
    return False
