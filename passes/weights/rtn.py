"""Round to nearest.

Over the elements that share a scale, with [low, high] their range widened to contain 0:

    symmetric    scale = max(high / qmax, low / qmin)     (both codes' ends are used)
    asymmetric   scale = (high - low) / (qmax - qmin),    zero_point = round(qmin - low / scale)
    code = clip(round(x / scale) + zero_point, qmin, qmax)

with rounding half to even. For per-channel int8, qmin is -127: integer kernels sum products of
codes, and a range symmetric in its codes is what every runtime's kernels take. Elements that are
all zero get scale 1. Codes that are floats themselves: see `onnxq.passes.weights._floats`; those of
a codebook: `_codebook`.
"""

from __future__ import annotations

from onnxq.passes.weights import _blocks, _codebook, _floats
from onnxq.types import Array, QTensor, QuantSpec


def quantize(weight: Array, spec: QuantSpec) -> QTensor:
    """Quantize `weight` to the nearest codes; see `onnxq.passes.weights._blocks.quantize`."""
    if _floats.has_float_codes(spec):
        return _floats.quantize(weight, spec)
    if _codebook.has_codebook(spec):
        return _codebook.quantize(weight, spec)
    return _blocks.quantize(weight, spec, search())


def search() -> _blocks.Search:
    """The kernel that finds the grid of a block."""
    from onnxq.kernels import grids  # noqa: PLC0415

    found: _blocks.Search = grids.cover
    return found


ALGORITHM = quantize
