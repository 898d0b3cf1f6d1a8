"""Scales of least error of the output, for codes that are the nearest; codes again, and so on.

With H the second moment of the inputs and R = W - Q, the error of the output is tr(R^T H R). Block
b of a column is s d, d its codes less the zero point. With all else as it is, that error is least
at

    s' = s + d^T (H R)_b / (d^T H_bb d)

which is tried with the codes that are, and with the nearest for s', and taken if the error is less:
block after block, a few times. H R changes by H_:b times what R_b changes, so that all blocks
together cost one product of matrices. (After the scale estimation of NNCF, which takes H to be
diagonal.)
"""

from __future__ import annotations

import numpy as np

from onnxq.passes.weights import DataAware, _blocks
from onnxq.passes.weights._with_moment import as_rows, quantized
from onnxq.types import Array, PerBlock, QTensor, QuantSpec

_ROUNDS = 4


def quantize(weight: Array, spec: QuantSpec, second_moment: Array) -> QTensor:
    """Quantize a matrix; see `onnxq.passes.weights.gptq.quantize`."""
    from onnxq.kernels import least_squares  # noqa: PLC0415

    rows = as_rows("scale-estimation", weight, spec, second_moment)
    assert isinstance(spec.granularity, PerBlock)
    diagonal = np.diag(second_moment)
    importance = (diagonal / (diagonal.max() or 1)).astype(np.float32)
    first = _blocks.quantize(weight, spec, least_squares.plain, importance)
    turned = spec.granularity.axis == 1
    codes, scale, zero_point = (
        np.ascontiguousarray(part.T if turned else part)
        for part in (first.codes, first.params.scale, first.params.zero_point)
    )
    origin = _blocks.code_range(spec)[2]
    places = codes.astype(np.float32) - origin
    zero = zero_point.astype(np.float32) - (0 if spec.float_zero_point else origin)
    moment = (second_moment / (diagonal.mean() or 1)).astype(np.float32)
    _estimate(rows, moment, places, scale, zero, spec)
    return quantized((places + origin).astype(np.int16).astype(np.uint8), scale, zero, spec)


def _estimate(
    rows: Array, moment: Array, places: Array, scale: Array, zero: Array, spec: QuantSpec
) -> None:
    """Change codes `places` (counted from the origin) and `scale` so that the error is less."""
    from onnxq.kernels.blocks import round_to  # noqa: PLC0415

    assert isinstance(spec.granularity, PerBlock)
    lowest, highest, _ = _blocks.code_range(spec)
    size, drop = spec.granularity.size, _blocks.DROPPED_BITS[spec.scale_dtype]
    blocks = [slice(start, start + size) for start in range(0, len(rows), size)]
    left = rows - np.concatenate(
        [(places[block] - zero[b]) * scale[b] for b, block in enumerate(blocks)]
    )
    for _ in range(_ROUNDS):
        pull = moment @ left
        for b, block in enumerate(blocks):
            steps, own = places[block] - zero[b], moment[block, block]
            curvature = np.sum(steps * (own @ steps), axis=0)
            known = curvature > 0
            better = scale[b] + np.sum(steps * pull[block], axis=0) / np.where(known, curvature, 1)
            better = np.where(known & (better > 0), better, scale[b])[None].astype(np.float32)
            round_to(better, drop)
            better = np.where(better > 0, better, scale[b])[0]
            nearest = rows[block] / better
            nearest = nearest + zero[b] if spec.float_zero_point else np.rint(nearest) + zero[b]
            nearest = np.clip(np.rint(nearest), lowest, highest)
            least = np.zeros(rows.shape[1], np.float32)
            change = np.zeros_like(steps)
            for tried in (places[block], nearest):
                moved = rows[block] - (tried - zero[b]) * better - left[block]
                gain = np.sum(moved * (2 * pull[block] + own @ moved), axis=0)
                taken = gain < least
                least = np.where(taken, gain, least)
                change = np.where(taken, moved, change)
                scale[b] = np.where(taken, better, scale[b])
                places[block] = np.where(taken, tried, places[block])
            left[block] += change
            pull += moment[:, block] @ change


ALGORITHM = DataAware(quantize)
