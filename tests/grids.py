"""What the codes of a quantized weight stand for, in plain numpy."""

import numpy as np

from onnxq.types import PerAxis, PerBlock, PerTensor


def expanded(params, shape, granularity):
    """A scale or zero point, repeated to `shape`."""
    match granularity:
        case PerTensor():
            return np.broadcast_to(params, shape)
        case PerAxis(axis):
            along = [-1 if i == axis else 1 for i in range(len(shape))]
            return np.broadcast_to(params.reshape(along), shape)
        case PerBlock(axis, size):
            repeated = np.repeat(params, size, axis)
            return repeated[tuple(slice(0, n) for n in shape)]


def dequantized(quantized):
    shape, granularity = quantized.codes.shape, quantized.spec.granularity
    zero = expanded(quantized.params.zero_point, shape, granularity).astype(np.float64)
    scale = expanded(quantized.params.scale, shape, granularity).astype(np.float64)
    return (quantized.codes - zero) * scale
