"""What the algorithms share that go by the second moment of the input."""

from __future__ import annotations

import numpy as np

from onnxq.errors import NotFiniteError, RecipeError
from onnxq.passes.weights import _blocks
from onnxq.types import Array, PerBlock, QParams, QTensor, QuantSpec


def as_rows(name: str, weight: Array, spec: QuantSpec, second_moment: Array) -> Array:
    """A matrix as float32 [K, N], K along the axis that is summed over.

    Raises:
        NotFiniteError: `weight` or `second_moment` holds NaN or infinity.
        RecipeError: It is not a matrix in blocks of integers.
    """
    if weight.ndim != 2 or not isinstance(spec.granularity, PerBlock):
        raise RecipeError(
            f"The weight algorithm {name} takes matrices in blocks, not {weight.ndim} axes, "
            f"{spec}.",
            "Choose the algorithm auto.",
        )
    _blocks.integers(spec)
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        rows = np.asarray(weight, np.float32)
    rows = rows if spec.granularity.axis == 0 else rows.T
    if not np.isfinite(rows).all() or not np.isfinite(second_moment).all():
        raise NotFiniteError("The weight, or the second moment of its input, is not finite.")
    return rows


def quantized(codes: Array, scale: Array, zero: Array, spec: QuantSpec) -> QTensor:
    """What an algorithm returns.

    Args:
        codes: uint8 [K, N], with the origin added, in two's complement.
        scale: float32 [blocks, N].
        zero: Likewise, counted from the origin.
        spec: What they mean.
    """
    assert isinstance(spec.granularity, PerBlock)
    carrier, origin = _blocks.integers(spec).carrier, _blocks.code_range(spec)[2]
    zero_point = zero if spec.float_zero_point else (zero + origin).astype(carrier)
    parts = [codes.view(carrier), scale, zero_point]
    if spec.granularity.axis == 1:
        parts = [np.ascontiguousarray(part.T) for part in parts]
    return QTensor(parts[0], QParams(parts[1], parts[2]), spec)
