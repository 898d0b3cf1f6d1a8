"""From a weight and a search for the grid of a block to a quantized weight.

Any weight is seen as [outer, rows, lanes]: elements of one lane, `size` rows at a time, share a
scale. Where a block is contiguous in memory, the last two axes are swapped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from onnxq import formats
from onnxq.errors import NotFiniteError, RecipeError
from onnxq.types import Array, PerAxis, PerBlock, PerTensor, QParams, QTensor, QuantSpec

Search: TypeAlias = Callable[..., None]
Encode: TypeAlias = Callable[..., None]

_PANEL = 1 << 16  # elements: 256 kB in float32
_WIDTH = 256


@dataclass(frozen=True)
class _FloatType:
    """How to make float32 of a float type; see `onnxq.kernels.panels`."""

    bits: np.dtype[Any]
    magnitude: int
    up: int
    sign_up: int
    factor: float
    infinity: int


_U16, _U32 = np.dtype(np.uint16), np.dtype(np.uint32)
_FLOATS = {
    np.dtype(np.float32): _FloatType(_U32, 0x7FFFFFFF, 0, 0, 1, 0x7F800000),
    np.dtype(np.float16): _FloatType(_U16, 0x7FFF, 13, 16, 2.0**112, 0x7C00),
    np.dtype(ml_dtypes.bfloat16): _FloatType(_U16, 0x7FFF, 16, 16, 1, 0x7F80),
}
DROPPED_BITS = {"float32": 0, "float16": 13, "bfloat16": 16}


def quantize(
    weight: Array,
    spec: QuantSpec,
    search: Search,
    importance: Array | None = None,
    encode: Encode | None = None,
) -> QTensor:
    """Quantize `weight` on the grids that `search` finds.

    Args:
        weight: Of any float type and shape, a scalar excepted.
        spec: Format and granularity.
        search: A kernel of the signature `onnxq.kernels._compile.SEARCH`.
        importance: What a squared error counts, by index of the reduced axis; 1 each if None.
        encode: Finds the codes, if they are not integers: a kernel of the signature `ENCODE` there.

    Returns:
        Codes in the shape of `weight`. A block at the end of the axis may be shorter.

    Raises:
        NotFiniteError: `weight` holds NaN or infinity.
        RecipeError: The format is not one of integers, and there is no `encode`.
    """
    from onnxq.kernels import blocks, grids, threads  # noqa: PLC0415

    number_format = integers(spec) if encode is None else formats.get(spec.format)
    carrier = number_format.carrier
    kind = _FLOATS.get(weight.dtype)
    if kind is None:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            weight = np.asarray(weight, np.float32)
        kind = _FLOATS[weight.dtype]
    source, columns, size = _view(_contiguous(weight, spec), spec)
    length, lanes = source.shape[:0:-1] if columns else source.shape[1:]
    counts = -(-length // size)
    params_shape = (source.shape[0], *((lanes, counts) if columns else (counts, lanes)))
    codes = np.empty(source.shape, np.uint8)
    scale, zero = np.empty(params_shape, np.float32), np.empty(params_shape, np.float32)
    if importance is None:
        importance = np.ones(length, np.float32)
    width = max(16, min(_WIDTH, _PANEL // size // 16 * 16))
    group = max(1, _PANEL // (size * width))
    lowest, highest, origin = number_format.qmin, number_format.qmax, 0
    if encode is None:
        lowest, highest, origin = code_range(spec)
    along, across = blocks.panel_counts(length, lanes, size, group, width)

    def work(first: int, last: int) -> int:
        return int(
            blocks.quantize(
                search, encode or grids.encode, first, last,
                source.view(kind.bits), columns, kind.bits.type(kind.magnitude), kind.up,
                kind.sign_up, np.float32(kind.factor),
                importance, size, group, width,
                np.float32(lowest), np.float32(highest),
                not spec.symmetric, not spec.float_zero_point, origin,
                DROPPED_BITS[spec.scale_dtype],
                codes, scale, zero,
            )
        )  # fmt: skip

    if max(threads.shared(work, source.shape[0] * along * across)) >= kind.infinity:
        raise NotFiniteError("The weight holds NaN or infinity.")
    zero_point = zero if spec.float_zero_point else (zero + origin).astype(carrier)
    params_like = _params_shape(weight.shape, spec)
    return QTensor(
        _restored(codes.view(carrier), weight.shape, spec),
        QParams(scale.reshape(params_like), zero_point.reshape(params_like)),
        spec,
    )


def integers(spec: QuantSpec) -> formats.IntegerFormat:
    """The format of `spec`, which is one of integers up to 8 bits.

    Raises:
        RecipeError: It is not.
    """
    number_format = formats.get(spec.format)
    if not isinstance(number_format, formats.IntegerFormat) or number_format.bits > 8:
        raise RecipeError(
            f"The weight algorithm finds grids of integers up to 8 bits, not of {spec.format}.",
            "Choose the algorithm rtn or mse.",
        )
    return number_format


def _contiguous(weight: Array, spec: QuantSpec) -> Array:
    """`weight`, with an axis in the middle that has a scale per index moved to the front."""
    if _is_inner_axis(weight.shape, spec):
        weight = np.moveaxis(weight, spec.granularity.axis, 0)  # type: ignore[union-attr]
    weight = np.ascontiguousarray(weight)
    return weight if weight.flags.aligned else weight.copy()


def _restored(codes: Array, shape: tuple[int, ...], spec: QuantSpec) -> Array:
    if not _is_inner_axis(shape, spec):
        return codes.reshape(shape)
    axis = spec.granularity.axis  # type: ignore[union-attr]
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(codes.reshape(moved), 0, axis))


def _is_inner_axis(shape: tuple[int, ...], spec: QuantSpec) -> bool:
    return isinstance(spec.granularity, PerAxis) and 0 < spec.granularity.axis < len(shape) - 1


def _view(weight: Array, spec: QuantSpec) -> tuple[Array, bool, int]:
    """`weight` with three axes, whether it is [outer, lanes, rows], and the size of a block."""
    match spec.granularity:
        case PerTensor():
            return weight.reshape(1, 1, -1), True, weight.size
        case PerAxis(axis):
            if axis > 0 and axis == weight.ndim - 1:
                view = weight.reshape(1, -1, weight.shape[-1])
                return view, False, view.shape[1]
            view = weight.reshape(1, weight.shape[0], -1)
            return view, True, view.shape[2]
        case PerBlock(axis, size):
            inner = int(np.prod(weight.shape[axis + 1 :]))
            length = weight.shape[axis]
            if inner == 1:
                return weight.reshape(1, -1, length), True, min(size, length)
            return weight.reshape(-1, length, inner), False, min(size, length)


def _params_shape(shape: tuple[int, ...], spec: QuantSpec) -> tuple[int, ...]:
    match spec.granularity:
        case PerTensor():
            return ()
        case PerAxis(axis):
            return (shape[axis],)
        case PerBlock(axis, size):
            return (*shape[:axis], -(-shape[axis] // size), *shape[axis + 1 :])


def code_range(spec: QuantSpec) -> tuple[int, int, int]:
    """The lowest and highest code counted from the origin, and the origin."""
    codes = integers(spec)
    if not spec.symmetric:
        return codes.qmin, codes.qmax, 0
    lowest, highest = codes.qmin - codes.middle, codes.qmax - codes.middle
    if not isinstance(spec.granularity, PerBlock):
        # Integer kernels sum products of codes, and take a range symmetric in its codes.
        lowest = -highest
    return lowest, highest, codes.middle
