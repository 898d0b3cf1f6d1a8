"""The grid of least error where a row counts as much as its inputs are large.

Behind it is activation-aware scaling (AWQ, Lin et al. 2023, arXiv:2306.00978): weights that large
inputs x meet are made larger before they are rounded, and x smaller in what computes it,

    W x = (diag(s) W)^T (diag(1/s) x),    s_j = E[x_j^2]^(alpha/2)

with the alpha of least error of the output; see `onnxq.passes.transforms.fold_scales`. Clipping is
what the grid's search does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxq.passes.weights import DataAware, _blocks
from onnxq.passes.weights._damage import damages
from onnxq.passes.weights._with_moment import as_rows
from onnxq.types import Array, PerBlock, QTensor, QuantSpec

_ALPHAS = np.linspace(0.1, 0.9, 9)
_SMALLEST = 1e-4  # of the mean square: what is smaller is no reason to scale


def quantize(weight: Array, spec: QuantSpec, second_moment: Array) -> QTensor:
    """Quantize a matrix; see `onnxq.passes.weights.gptq.quantize`."""
    from onnxq.kernels import least_squares  # noqa: PLC0415

    as_rows("awq", weight, spec, second_moment)
    diagonal = np.diag(second_moment)
    importance = (diagonal / (diagonal.max() or 1)).astype(np.float32)
    return _blocks.quantize(weight, spec, least_squares.plain, importance)


def strength(
    weights: Sequence[tuple[Array, QuantSpec]],
    second_moment: Array,
    alike: Callable[[Array], Array] | None = None,
) -> Array | None:
    """The scales s of the common input of some matrices.

    Args:
        weights: [K, N] or [N, K], or stacks of them, each with its spec.
        second_moment: Of their input, [K, K].
        alike: Gives rows of the input that need the same scale the same size; None for none.

    Returns:
        float64 [K] of geometric mean 1; None if no scales lessen the error of the outputs.
    """
    diagonal = np.diag(second_moment)
    if not diagonal.max() > 0:
        return None
    if alike is not None:
        diagonal = alike(diagonal)
    squares = np.maximum(diagonal / diagonal.mean(), _SMALLEST)
    found, least = None, _damage(weights, second_moment, np.ones_like(squares))
    for alpha in _ALPHAS:
        s = squares ** (alpha / 2)
        s = s / np.exp(np.log(s).mean())
        if (damage := _damage(weights, second_moment, s)) < least:
            found, least = s, damage
    return found


def _damage(weights: Sequence[tuple[Array, QuantSpec]], moment: Array, s: Array) -> float:
    moment = moment / np.outer(s, s)
    total = 0.0
    for weight, spec in weights:
        assert isinstance(spec.granularity, PerBlock)
        along = np.expand_dims(s, [a for a in range(weight.ndim) if a != spec.granularity.axis])
        scaled = (weight.astype(np.float32) * along).astype(np.float32)
        total += damages(scaled, [spec], moment, lambda w, q: quantize(w, q, moment))[0]
    return total


ALGORITHM = DataAware(quantize)
