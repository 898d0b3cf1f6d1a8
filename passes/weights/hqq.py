"""Half-quadratic quantization: the grid of least lp error, p = 0.7.

Large elements may be clipped if that serves the many small ones. See
`onnxq.kernels.half_quadratic`. It gains most with float zero points.
"""

from __future__ import annotations

from onnxq.passes.weights import _blocks
from onnxq.types import Array, QTensor, QuantSpec


def quantize(weight: Array, spec: QuantSpec, importance: Array | None = None) -> QTensor:
    """See `onnxq.passes.weights._blocks.quantize`."""
    return _blocks.quantize(weight, spec, search(), importance)


def search() -> _blocks.Search:
    """The kernel that finds the grid of a block."""
    from onnxq.kernels import half_quadratic  # noqa: PLC0415

    found: _blocks.Search = half_quadratic.search
    return found


ALGORITHM = quantize
