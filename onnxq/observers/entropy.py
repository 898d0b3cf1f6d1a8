"""The range that loses the least information (Kullback-Leibler divergence).

For a limit of i bins, P is the distribution of absolute values up to it, with what lies beyond
counted at the limit; Q is P as 128 codes can tell it: bins of one code share its mass evenly, among
those that are not empty. The limit with the least KL(P || Q) is taken.
(S. Migacz, "8-bit Inference with TensorRT", GTC 2017.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxq import formats
from onnxq.observers._histogram import Histogram, magnitudes
from onnxq.types import Array, QuantSpec

_STEP = 8  # bins between two limits that are tried


@dataclass(frozen=True)
class Entropy(Histogram):
    """Clips where the divergence is least."""

    name: ClassVar[str] = "entropy"

    def choose(self, counts: Array, width: float, largest: float, spec: QuantSpec) -> float:
        """See `Histogram.choose`."""
        codes = formats.get(spec.format)
        levels = codes.qmax - codes.middle + 1
        found = magnitudes(counts)
        last = int(np.flatnonzero(found)[-1]) + 1
        if last <= levels:
            return largest
        limits = [*range(last, levels, -_STEP), levels]
        best = limits[int(np.argmin([divergence(found, limit, levels) for limit in limits]))]
        return largest if best == last else best * width


def divergence(counts: Array, limit: int, levels: int) -> float:
    """KL(P || Q) for a limit of `limit` bins and as many codes as `levels`."""
    inside = counts[:limit].astype(np.float64)
    expected = inside.copy()
    expected[-1] += counts[limit:].sum()
    code = np.arange(limit) * levels // limit
    used = inside > 0
    mass = np.bincount(code, weights=inside, minlength=levels)
    sharers = np.bincount(code, weights=used, minlength=levels)
    found = np.where(used, (mass / np.maximum(sharers, 1))[code], 0)
    if (expected[~used] > 0).any():  # what was clipped falls where Q has nothing
        return float("inf")
    p, q = expected[used] / expected.sum(), found[used] / found.sum()
    return float((p * np.log(p / q)).sum())


OBSERVER = Entropy
