"""The core types: how a tensor is quantized, and what a quantized tensor is.

    real = (code - zero_point) * scale          real = level(code) * scale in a codebook

with one scale and zero point per tensor, per index of one axis, or per block along one axis
(ONNX QuantizeLinear / DequantizeLinear, opset 21).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor; the scale has shape []."""

    def __str__(self) -> str:
        return "per-tensor"


@dataclass(frozen=True)
class PerAxis:
    """One scale per index of `axis`; the scale has shape [shape[axis]]."""

    axis: int

    def __str__(self) -> str:
        return f"per-channel(axis {self.axis})"


@dataclass(frozen=True)
class PerBlock:
    """One scale per `size` consecutive elements of `axis`.

    The scale has the tensor's rank, and ceil(shape[axis] / size) along `axis`.
    """

    axis: int
    size: int

    def __str__(self) -> str:
        return f"block {self.size}(axis {self.axis})"


Granularity: TypeAlias = PerTensor | PerAxis | PerBlock
ScaleType: TypeAlias = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class QuantSpec:
    """How a tensor is to be quantized: decided before any number is known.

    Attributes:
        format: The number format of the codes, a name in `onnxq.formats` ("int8", "uint4").
        granularity: Which elements share a scale.
        symmetric: Whether real zero sits at the middle of the format's range (code 0 of a signed
            format, 2^(bits-1) of an unsigned one), so that no zero point needs storing.
        float_zero_point: Whether zero points lie between codes too; of asymmetric weights only.
        scale_dtype: The float type that scales and float zero points are stored in. They are
            rounded to it before codes are chosen.
    """

    format: str
    granularity: Granularity = PerTensor()
    symmetric: bool = True
    float_zero_point: bool = False
    scale_dtype: ScaleType = "float32"

    def __post_init__(self) -> None:
        if self.float_zero_point and self.symmetric:
            raise ValueError("a symmetric quantization has no zero point to be float")

    def __str__(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        if self.float_zero_point:
            kind += " (float zero points)"
        return f"{self.format} {kind} {self.granularity}"


@dataclass(frozen=True, eq=False)
class QParams:
    """The numbers of a quantization.

    Attributes:
        scale: float32, positive, shaped as the granularity says.
        zero_point: Codes of the shape of `scale`; all zero for symmetric signed formats. Integers,
            or float32 if the spec says so.
    """

    scale: NDArray[np.float32]
    zero_point: Array


@dataclass(frozen=True, eq=False)
class QTensor:
    """A quantized tensor: what every weight algorithm returns.

    Attributes:
        codes: Unpacked codes in the format's `carrier` (int8 or uint8 for integers up to 8 bits),
            in the shape of the tensor.
        params: Scale and zero point.
        spec: What they mean.
    """

    codes: Array
    params: QParams
    spec: QuantSpec
