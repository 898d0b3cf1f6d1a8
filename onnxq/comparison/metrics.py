"""How far `candidate` is from `reference`: arrays in, numbers out.

Everything is computed in float64. NaN and infinity in an input are not skipped: they make the
result NaN, except in `argmax_agreement`, where a row with a NaN does not agree.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onnxq.types import Array


def energies(reference: Array, candidate: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The squares of the reference and of the difference: what `decibels` takes the sums of."""
    signal = reference.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf
        noise = candidate.astype(np.float64) - signal
    return signal * signal, noise * noise


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise); inf without noise, also when there is no signal either."""
    if math.isnan(signal) or math.isnan(noise) or math.isinf(noise):
        return math.nan
    if noise == 0.0:
        return math.inf
    return -math.inf if signal == 0.0 else 10.0 * (math.log10(signal) - math.log10(noise))


def sqnr_db(reference: Array, candidate: Array) -> float:
    """Signal to quantization noise ratio: 10 log10(sum r^2 / sum (r - c)^2).

    Equal arrays give inf; a candidate of zeros gives 0. (Widrow and Kollar, Quantization Noise,
    Cambridge University Press, 2008.)
    """
    signal, noise = energies(reference, candidate)
    return decibels(float(signal.sum()), float(noise.sum()))


def cosine(reference: Array, candidate: Array) -> float:
    """The cosine of the angle between the arrays as vectors: r.c / (|r| |c|).

    Two zero vectors have cosine 1, one zero vector has cosine 0.
    """
    left, right = (array.astype(np.float64) for array in (reference, candidate))
    lengths = [math.sqrt(float((array * array).sum())) for array in (left, right)]
    if not all(map(math.isfinite, lengths)):
        return math.nan
    if min(lengths) == 0.0:
        return 1.0 if max(lengths) == 0.0 else 0.0
    # Not np.dot: its threads would compete with ONNX Runtime's, and its result vary with them.
    return min(1.0, max(-1.0, float((left * right).sum()) / lengths[0] / lengths[1]))


def max_abs_error(reference: Array, candidate: Array) -> float:
    """The largest |r - c|; 0 for empty arrays."""
    with np.errstate(invalid="ignore"):  # inf - inf
        difference = candidate.astype(np.float64) - reference.astype(np.float64)
    return float(np.abs(difference).max(initial=0.0))


def argmax_agreement(reference: Array, candidate: Array) -> tuple[int, int]:
    """In how many rows along the last axis both are largest at the same index, and of how many."""
    same = reference.argmax(axis=-1) == candidate.argmax(axis=-1)
    for array in (reference, candidate):
        same &= ~np.isnan(array).any(axis=-1)
    return int(np.count_nonzero(same)), int(same.size)


def non_finite(array: Array) -> int:
    """The number of NaN and infinite elements."""
    return int(array.size - np.count_nonzero(np.isfinite(array)))
