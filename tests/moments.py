"""Weights with second moments of their inputs, and what quantization does to their outputs."""

import numpy as np


def correlated(rng, length):
    """The second moment of inputs that depend on each other and differ in size."""
    inputs = rng.normal(size=(4 * length, length)) @ rng.normal(size=(length, length))
    inputs *= rng.lognormal(size=length)
    return inputs.T @ inputs


def drawn(seed, spec, length, lanes):
    rng = np.random.default_rng(seed)
    shape = (length, lanes) if spec.granularity.axis == 0 else (lanes, length)
    return rng.normal(size=shape).astype(np.float32), correlated(rng, length)


def decoded(quantized):
    axis, size = quantized.spec.granularity.axis, quantized.spec.granularity.size
    codes = quantized.codes
    scale, zero = (
        np.take(np.repeat(array.astype(np.float64), size, axis), range(codes.shape[axis]), axis)
        for array in (quantized.params.scale, quantized.params.zero_point)
    )
    return (codes - zero) * scale


def output_error(quantized, weight, moment):
    off = decoded(quantized) - weight
    off = off if quantized.spec.granularity.axis == 0 else off.T
    return float(np.einsum("kn,kj,jn->", off, moment, off))
