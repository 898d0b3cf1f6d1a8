"""Codes that stand for the levels of a codebook (nf4): one scale per block, no zero point."""

from __future__ import annotations

from onnxq import formats
from onnxq.passes.weights import _blocks
from onnxq.types import Array, QTensor, QuantSpec


def has_codebook(spec: QuantSpec) -> bool:
    """Whether the codes of `spec` stand for the levels of a codebook."""
    return isinstance(formats.get(spec.format), formats.CodebookFormat)


def quantize(weight: Array, spec: QuantSpec, *, least_error: bool = False) -> QTensor:
    """Quantize `weight` to the nearest levels; see `onnxq.passes.weights._blocks.quantize`.

    Args:
        weight: Of any float type and shape.
        spec: The format nf4, symmetric.
        least_error: Whether to search the scale; see `onnxq.kernels.nf4`.
    """
    from onnxq.kernels import nf4  # noqa: PLC0415

    search = nf4.search if least_error else nf4.cover
    return _blocks.quantize(weight, spec, search, encode=nf4.encode)
