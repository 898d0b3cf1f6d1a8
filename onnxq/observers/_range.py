"""The scale and zero point of a range.

Let [low, high] be the range, widened to contain 0, and [qmin, qmax] the codes of the format.

    symmetric    scale = max(-low, high) / (qmax - middle)    zero_point = middle
    asymmetric   scale = (high - low) / (qmax - qmin)         zero_point = round(qmin - low / scale)

`middle` is 0 in a signed format and 2^(bits-1) in an unsigned one. Rounding is half to even. Real
zero is a code in both, so zero padding costs nothing. A tensor that is always zero gets scale 1,
which represents it exactly. A scale below the smallest normal float32 is raised to that, because
runtimes flush denormals to zero and then divide by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxq import formats
from onnxq.types import QParams, QuantSpec

_FLOAT32 = np.finfo(np.float32)


def range_params(low: float, high: float, spec: QuantSpec) -> QParams:
    """The scale and zero point that clip nothing between `low` and `high`."""
    low, high = min(low, 0.0), max(high, 0.0)
    codes = formats.get(spec.format)
    if spec.symmetric:
        scale = _scale(max(-low, high) / (codes.qmax - codes.middle))
        zero_point = codes.middle
    else:
        steps = codes.qmax - codes.qmin
        scale = _scale(high / steps - low / steps)
        zero_point = int(np.clip(np.rint(codes.qmin - low / float(scale)), codes.qmin, codes.qmax))
    return QParams(scale, np.array(zero_point, codes.carrier))


def _scale(exact: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    if exact == 0.0:
        return np.array(1.0, np.float32)
    return np.array(min(max(exact, float(_FLOAT32.tiny)), float(_FLOAT32.max)), np.float32)
