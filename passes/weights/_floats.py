"""Codes that are floats (fp8): one scale per tensor or per index of an axis.

    scale = max|x| / largest * growth        code = cast(x / scale), saturated

A float grid is relative: its error is a share of each value, whatever the scale, so clipping gains
nothing. Where the mantissas fall matters a little: scales that are up to twice as large, after
which the mantissas fall the same again, are tried for the one of least squared error. On normally
distributed weights that is worth 0.3 to 0.7 dB.
"""

from __future__ import annotations

import numpy as np

from onnxq import formats
from onnxq.errors import NotFiniteError, RecipeError
from onnxq.types import Array, PerAxis, PerBlock, QParams, QTensor, QuantSpec

_GROWTHS = (2.0 ** (np.arange(8) / 8)).astype(np.float32)


def has_float_codes(spec: QuantSpec) -> bool:
    """Whether the codes of `spec` are floats."""
    return isinstance(formats.get(spec.format), formats.FloatFormat)


def quantize(weight: Array, spec: QuantSpec, *, least_error: bool = False) -> QTensor:
    """Quantize `weight` to float codes.

    Args:
        weight: Of any float type and shape.
        spec: A float format, symmetric, per tensor or per channel.
        least_error: Whether to search the scale.

    Raises:
        NotFiniteError: `weight` holds NaN or infinity.
        RecipeError: The granularity is of blocks, or the spec has zero points.
    """
    if isinstance(spec.granularity, PerBlock) or not spec.symmetric:
        raise RecipeError(
            f"Float codes have one scale per tensor or channel and no zero point, not {spec}.",
            "Leave out block_size and symmetric.",
        )
    number_format = formats.get(spec.format)
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        values = np.asarray(weight, np.float32)
    if not np.isfinite(values).all():
        raise NotFiniteError("The weight holds NaN or infinity.")
    others = tuple(range(values.ndim))
    if isinstance(spec.granularity, PerAxis):
        axis = spec.granularity.axis % values.ndim
        others = (*others[:axis], *others[axis + 1 :])
    peak = np.abs(values).max(axis=others, keepdims=True)
    unit = _scale(peak, number_format.qmax)
    scaled = values / unit
    best, least = np.ones_like(peak), np.full(peak.shape, np.inf)
    for growth in _GROWTHS if least_error else ():
        errors = np.square(number_format.nearest(scaled / growth) * growth - scaled)
        total = errors.sum(axis=others, keepdims=True, dtype=np.float64)
        best, least = np.where(total < least, growth, best), np.minimum(total, least)
    scale = unit * best
    codes = number_format.nearest(values / scale).astype(number_format.carrier)
    scale = scale.reshape(scale.size if isinstance(spec.granularity, PerAxis) else ())
    return QTensor(codes, QParams(scale, np.zeros_like(scale, number_format.carrier)), spec)


def _scale(peak: Array, largest: int) -> Array:
    tiny = np.finfo(np.float32).tiny
    exact = np.maximum(peak / np.float32(largest), tiny)
    return np.where(peak == 0, np.float32(1), exact).astype(np.float32)
