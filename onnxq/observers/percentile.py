"""The range that covers a share of the values: rare outliers are clipped.

The limit is the upper edge of the bin in which the share of absolute values reaches `percentile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnxq.observers._histogram import Histogram, magnitudes
from onnxq.types import Array, QuantSpec


@dataclass(frozen=True)
class Percentile(Histogram):
    """Clips all but `percentile` percent of the values."""

    percentile: float = 99.99
    name: ClassVar[str] = "percentile"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The percentile."""
        return {"percentile": self.percentile}

    def choose(self, counts: Array, width: float, largest: float, spec: QuantSpec) -> float:
        """See `Histogram.choose`."""
        del spec  # the same for every format
        covered = np.cumsum(magnitudes(counts))
        bins = int(np.searchsorted(covered, self.percentile / 100 * covered[-1])) + 1
        return min(bins * width, largest)


OBSERVER = Percentile
