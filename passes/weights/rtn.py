"""Round to nearest.

Over the elements that share a scale, with [low, high] their range widened to contain 0:

    symmetric    scale = max(high / qmax, low / qmin)     (both codes' ends are used)
    asymmetric   scale = (high - low) / (qmax - qmin),    zero_point = round(qmin - low / scale)
    code = clip(round(x / scale) + zero_point, qmin, qmax)

with rounding half to even. For per-channel int8, qmin is -127: integer kernels sum products of
codes, and a range symmetric in its codes is what every runtime's kernels take. Elements that are
all zero get scale 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from onnxq import formats
from onnxq.types import Array, PerAxis, PerBlock, PerTensor, QParams, QTensor, QuantSpec

_TILE_BYTES = 32 << 20  # of float32 worked on at a time


Refine: TypeAlias = Callable[[Array, Array, Array, QuantSpec], Array]


def quantize(weight: Array, spec: QuantSpec, refine: Refine | None = None) -> QTensor:
    """Quantize `weight` to the nearest codes.

    Args:
        weight: Finite floats of any float dtype and shape, a scalar excepted.
        spec: Format and granularity.
        refine: Gives a better scale than that of the range, from elements [outer, shared, inner]
            (those along `shared` have one scale), scale and zero point [outer, 1, inner].

    Returns:
        Codes in the shape of `weight`. A block at the end of the axis may be shorter.
    """
    codes = np.empty(weight.shape, formats.get(spec.format).carrier)
    scale_shape = _scale_shape(weight.shape, spec)
    scale = np.empty(scale_shape, np.float32)
    zero_point = np.empty(scale_shape, codes.dtype)
    for rows, scale_rows in _tiles(weight, spec):
        grouped = _group(np.asarray(weight[rows], np.float32), spec)
        tile_scale, tile_zero = _params(grouped, spec)
        if refine is not None:
            tile_scale = refine(grouped, tile_scale, tile_zero, spec)
        coded = encode(grouped, tile_scale, tile_zero, spec)
        codes[rows] = _ungroup(coded, weight[rows].shape, spec)
        scale[scale_rows] = tile_scale.reshape(scale[scale_rows].shape)
        zero_point[scale_rows] = tile_zero.reshape(scale[scale_rows].shape)
    return QTensor(codes, QParams(scale, zero_point), spec)


ALGORITHM = quantize


def _scale_shape(shape: tuple[int, ...], spec: QuantSpec) -> tuple[int, ...]:
    match spec.granularity:
        case PerTensor():
            return ()
        case PerAxis(axis):
            return (shape[axis],)
        case PerBlock(axis, size):
            return (*shape[:axis], -(-shape[axis] // size), *shape[axis + 1 :])


def _tiles(weight: Array, spec: QuantSpec) -> list[tuple[slice, Any]]:
    """Slices of axis 0 that can be quantized apart, each with the index of its scales."""
    everything = slice(None)
    match spec.granularity:
        case PerBlock(axis, size):
            step = size if axis == 0 else 1
        case PerAxis(0):
            step = 1
        case _:
            return [(everything, ... if isinstance(spec.granularity, PerTensor) else everything)]
    bytes_per_step = 4 * step * max(weight[:1].size, 1)
    rows = max(1, _TILE_BYTES // bytes_per_step) * step
    return [
        (slice(start, start + rows), slice(start // step, -(-(start + rows) // step)))
        for start in range(0, weight.shape[0], rows)
    ]


def _group(tile: Array, spec: QuantSpec) -> Array:
    """`tile` as [outer, shared, inner]: elements along `shared` have one scale."""
    match spec.granularity:
        case PerTensor():
            return tile.reshape(1, -1, 1)
        case PerAxis(axis):
            return np.moveaxis(tile, axis, 0).reshape(tile.shape[axis], -1, 1)
        case PerBlock(axis, size):
            missing = -tile.shape[axis] % size
            if missing:
                pad = [(0, missing if i == axis else 0) for i in range(tile.ndim)]
                tile = np.pad(tile, pad)
            inner = int(np.prod(tile.shape[axis + 1 :]))
            return tile.reshape(-1, size, inner)


def _ungroup(grouped: Array, shape: tuple[int, ...], spec: QuantSpec) -> Array:
    match spec.granularity:
        case PerTensor():
            return grouped.reshape(shape)
        case PerAxis(axis):
            moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
            return np.moveaxis(grouped.reshape(moved), 0, axis)
        case PerBlock(axis, size):
            padded = [-(-n // size) * size if i == axis else n for i, n in enumerate(shape)]
            whole = grouped.reshape(padded)
            return whole[tuple(slice(0, n) for n in shape)]


def _params(grouped: Array, spec: QuantSpec) -> tuple[Array, Array]:
    codes = formats.get(spec.format)
    low = np.minimum(grouped.min(axis=1, keepdims=True), 0)
    high = np.maximum(grouped.max(axis=1, keepdims=True), 0)
    tiny = np.finfo(np.float32).tiny
    if spec.symmetric:
        lowest, highest = _symmetric_codes(spec)
        scale = np.maximum(high / highest, low / lowest)
        zero = np.full(scale.shape, codes.middle, codes.carrier)
    else:
        scale = high / (codes.qmax - codes.qmin) - low / (codes.qmax - codes.qmin)
    scale = np.where(scale == 0, 1, np.maximum(scale, tiny)).astype(np.float32)
    if not spec.symmetric:
        zero = np.clip(np.rint(codes.qmin - low / scale), codes.qmin, codes.qmax)
    return scale, zero.astype(codes.carrier)


def encode(grouped: Array, scale: Array, zero: Array, spec: QuantSpec) -> Array:
    """The nearest codes."""
    codes = formats.get(spec.format)
    lowest, highest = codes.qmin, codes.qmax
    if spec.symmetric:
        below, above = _symmetric_codes(spec)
        lowest, highest = codes.middle + below, codes.middle + above
    scaled = grouped / scale
    np.rint(scaled, out=scaled)
    scaled += zero
    np.clip(scaled, lowest, highest, out=scaled)
    return scaled.astype(codes.carrier)


def _symmetric_codes(spec: QuantSpec) -> tuple[int, int]:
    """The lowest and highest code, counted from the middle."""
    codes = formats.get(spec.format)
    lowest, highest = codes.qmin - codes.middle, codes.qmax - codes.middle
    return (lowest, highest) if isinstance(spec.granularity, PerBlock) else (-highest, highest)
