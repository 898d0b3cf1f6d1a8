"""What a quantization does to the output of a product, before the whole weight is quantized.

    damage = tr((W - Q)^T H (W - Q)) / tr(W^T H W)

with H the second moment of the input: the noise of the output beside its signal. Without H it is
the error of the weight beside the weight. Columns are independent of each other, so some of them,
evenly spaced, tell the damage to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxq import formats
from onnxq.passes.weights import WeightAlgorithm, get
from onnxq.types import Array, PerBlock, QTensor, QuantSpec

_COLUMNS = 128
_ALGORITHM = "auto"  # what others gain over it, they gain at every width


def damages(
    weight: Array,
    specs: Sequence[QuantSpec],
    moment: Array | None,
    algorithm: WeightAlgorithm | None = None,
) -> list[float]:
    """The damage of each of `specs`, in blocks along one axis, to `weight`, a matrix or a stack.

    Args:
        weight: Of any float type.
        specs: What it may become.
        moment: H; None for the identity.
        algorithm: Makes the codes; the best that needs no data if None.
    """
    weight, specs = _as_matrix(weight, specs)
    granularity = specs[0].granularity
    assert isinstance(granularity, PerBlock)
    columns = weight.shape[1 - granularity.axis]
    some = np.linspace(0, columns - 1, min(columns, _COLUMNS), dtype=int)
    sample = np.ascontiguousarray(np.take(weight, some, 1 - granularity.axis), np.float32)
    h = None if moment is None else moment.astype(np.float32)
    signal = _energy(sample, granularity.axis, h)
    if signal == 0:
        return [0.0] * len(specs)
    algorithm = algorithm or get(_ALGORITHM)
    return [
        _energy(_decoded(algorithm(sample, spec)) - sample, granularity.axis, h) / signal
        for spec in specs
    ]


def _as_matrix(weight: Array, specs: Sequence[QuantSpec]) -> tuple[Array, Sequence[QuantSpec]]:
    """The columns of a stack of matrices side by side."""
    if weight.ndim == 2:
        return weight, specs
    blocks = [spec.granularity for spec in specs if isinstance(spec.granularity, PerBlock)]
    axis = blocks[0].axis
    matrix = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return matrix, [
        replace(spec, granularity=PerBlock(0, block.size))
        for spec, block in zip(specs, blocks, strict=True)
    ]


def _energy(columns: Array, axis: int, moment: Array | None) -> float:
    columns = columns if axis == 0 else columns.T
    through = columns if moment is None else moment @ columns
    return float(np.sum(columns * through, dtype=np.float64))


def _decoded(quantized: QTensor) -> Array:
    granularity, params = quantized.spec.granularity, quantized.params
    assert isinstance(granularity, PerBlock)
    axis, length = granularity.axis, quantized.codes.shape[granularity.axis]
    scale, zero_point = (
        np.take(np.repeat(each.astype(np.float32), granularity.size, axis), range(length), axis)
        for each in (params.scale, params.zero_point)
    )
    values = formats.get(quantized.spec.format).values(quantized.codes)
    return np.asarray((values - zero_point) * scale)
