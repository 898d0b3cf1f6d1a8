"""A matrix of codes, whatever form it is stored in: [outputs, length], in blocks along the length.

Codes are unsigned here: those of signed formats have the middle of the range added, as have their
zero points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.onnxfile import release
from onnxq.passes.edit import constant
from onnxq.types import Array

Key: TypeAlias = tuple[ir.Value | None, ir.Value | None, ir.Value | None]

_SIGNED = (ir.DataType.INT2, ir.DataType.INT4, ir.DataType.INT8)


@dataclass(frozen=True)
class Part:
    """The codes, scales or zero points of a matrix, read when they are needed.

    Attributes:
        source: The tensor that holds them.
        read: Makes [outputs, ..] of its array if it is also given True, else [.., outputs].
    """

    source: ir.TensorProtocol
    read: Callable[[Array, bool], Array]

    def to(
        self,
        write: Callable[[Array], Array],
        dtype: ir.DataType,
        shape: Sequence[int],
        *,
        by_rows: bool,
    ) -> ir.LazyTensor:
        """The tensor of `dtype` and `shape` that `write` makes of them.

        Args:
            write: Takes [outputs, ..] if `by_rows`, else [.., outputs].
            dtype: Of the tensor.
            shape: Of the tensor.
            by_rows: See `write`.
        """

        def moved() -> Array:
            array = write(self.read(self.source.numpy(), by_rows))
            return array.astype(dtype.numpy(), order="C").reshape(shape)

        def evaluate() -> ir.Tensor[Array]:
            tensor = ir.Tensor(moved(), dtype=dtype)
            release(self.source)
            return tensor

        return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(shape))


@dataclass(frozen=True)
class StoredMatrix:
    """A quantized matrix.

    Attributes:
        key: The initializers that hold it, the same for all nodes that read it.
        name: What its initializers are named after.
        bits: Of a code.
        block_size: Codes that share a scale; the last block of a row may be shorter.
        outputs: How many rows there are.
        length: Codes of a row.
        by_rows: Whether codes are stored as [outputs, length]; otherwise [length, outputs].
        codes: uint8 [outputs, length].
        scales: [outputs, blocks].
        zero_points: uint8 [outputs, blocks]; None if all are the middle of the range.
    """

    key: Key
    name: str
    bits: int
    block_size: int
    outputs: int
    length: int
    by_rows: bool
    codes: Part
    scales: Part
    zero_points: Part | None

    @property
    def dtype(self) -> ir.DataType:
        """Of the scales."""
        return self.scales.source.dtype

    @property
    def blocks(self) -> int:
        """How many a row has."""
        return -(-self.length // self.block_size)


def plain_codes(tensor: ir.TensorProtocol, bits: int, *, by_rows: bool = True) -> Part:
    """Codes, or zero points, in a tensor of integers of `bits` bits.

    Args:
        tensor: [outputs, length], or [length, outputs].
        bits: Their width.
        by_rows: Which of them.
    """
    middle = np.uint8(1 << (bits - 1)) if tensor.dtype in _SIGNED else np.uint8(0)

    def unsigned(array: Array, wanted: bool) -> Array:
        codes = array.astype(np.int8 if middle else np.uint8).view(np.uint8) + middle
        return codes if wanted == by_rows else codes.T

    return Part(tensor, unsigned)


def scales(
    node: ir.Node, value: ir.Value | None, outputs: int, blocks: int, *, by_rows: bool = True
) -> Part:
    """The scales that `node` reads; some tools write those of MatMulNBits as one row.

    Raises:
        ModelError: They are not constant, or not as many.
    """
    tensor = required_constant(node, value, "scales")
    require_size(node, tensor, "scales", outputs * blocks)
    shape = (outputs, blocks) if by_rows else (blocks, outputs)

    def read(array: Array, wanted: bool) -> Array:
        found = array.reshape(shape)
        return found if wanted == by_rows else found.T

    return Part(tensor, read)


def alike(value: int, outputs: int, blocks: int) -> Part:
    """Zero points that are all the same, and stored nowhere."""
    shape = (outputs, blocks)
    source = ir.LazyTensor(
        lambda: ir.Tensor(np.full(shape, value, np.uint8)), ir.DataType.UINT8, ir.Shape(shape)
    )
    return Part(source, lambda array, by_rows: array if by_rows else array.T)


def require(fits: bool, node: ir.Node, found: str, fix: str) -> None:
    """Refuse to convert `node` unless it fits.

    Raises:
        ModelError: What was found, and what to do.
    """
    if not fits:
        raise ModelError(f"The {node.op_type} '{node.name}' cannot be converted: {found}.", fix)


def required_constant(node: ir.Node, value: ir.Value | None, word: str) -> ir.TensorProtocol:
    """The tensor of what `node` reads.

    Raises:
        ModelError: It is computed at run time.
    """
    tensor = constant(value)
    require(tensor is not None, node, f"its {word} are no initializer", "Fold its constants first.")
    assert tensor is not None
    return tensor


def require_size(node: ir.Node, tensor: ir.TensorProtocol, word: str, size: int) -> None:
    """Refuse a tensor that has not the elements that `node` asks for.

    Raises:
        ModelError: It has more or fewer.
    """
    found = f"its {word} are {list(tensor.shape.numpy())}; it needs {size} of them"
    require(tensor.size == size, node, found, "The file is damaged: make it again.")


def without_suffix(name: str | None, suffix: str) -> str:
    """`name` without `suffix`, if it ends in it."""
    return (name or "").removesuffix(suffix)
