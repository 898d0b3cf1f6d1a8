"""The grid of least squared error in which large elements count more.

As llama.cpp's k-quants: an element x counts rms + |x| of its block, or x^2 if there is no zero
point. See `onnxq.kernels.least_squares`.
"""

from __future__ import annotations

from onnxq.passes.weights import _blocks
from onnxq.types import Array, QTensor, QuantSpec


def quantize(weight: Array, spec: QuantSpec, importance: Array | None = None) -> QTensor:
    """See `onnxq.passes.weights._blocks.quantize`."""
    return _blocks.quantize(weight, spec, search(), importance)


def search() -> _blocks.Search:
    """The kernel that finds the grid of a block."""
    from onnxq.kernels import least_squares  # noqa: PLC0415

    found: _blocks.Search = least_squares.by_magnitude
    return found


ALGORITHM = quantize
