"""A stack of matrices, [E, K, N] or [E, N, K], quantized matrix by matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnxq.types import Array, PerBlock, QParams, QTensor, QuantSpec


def by_matrix(
    quantize: Callable[[Array, QuantSpec], QTensor], weight: Array, spec: QuantSpec
) -> QTensor:
    """Quantize `weight`, a matrix or a stack of them in blocks along one axis of each.

    Args:
        quantize: For one matrix.
        weight: Of any float type.
        spec: By the axes of `weight`.
    """
    blocks = spec.granularity
    if weight.ndim != 3 or not isinstance(blocks, PerBlock):
        return quantize(weight, spec)
    of_one = replace(spec, granularity=PerBlock(blocks.axis - 1, blocks.size))
    found = [quantize(matrix, of_one) for matrix in weight]
    return QTensor(
        np.stack([each.codes for each in found]),
        QParams(
            np.stack([each.params.scale for each in found]),
            np.stack([each.params.zero_point for each in found]),
        ),
        spec,
    )
