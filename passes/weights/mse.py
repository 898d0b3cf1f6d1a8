"""The grid of least squared error: scale, and zero point if there is one, per block.

See `onnxq.kernels.least_squares`. Never worse than rounding to nearest in that measure.
"""

from __future__ import annotations

from onnxq.passes.weights import _blocks, _codebook, _floats
from onnxq.types import Array, QTensor, QuantSpec


def quantize(weight: Array, spec: QuantSpec, importance: Array | None = None) -> QTensor:
    """See `_blocks.quantize`, `_floats` for codes that are floats, and `_codebook` for nf4."""
    if importance is None and _floats.has_float_codes(spec):
        return _floats.quantize(weight, spec, least_error=True)
    if importance is None and _codebook.has_codebook(spec):
        return _codebook.quantize(weight, spec, least_error=True)
    return _blocks.quantize(weight, spec, search(), importance)


def search() -> _blocks.Search:
    """The kernel that finds the grid of a block."""
    from onnxq.kernels import least_squares  # noqa: PLC0415

    found: _blocks.Search = least_squares.plain
    return found


ALGORITHM = quantize
