"""A number format: the grid that codes lie on, and how they are stored in an ONNX tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.types import Array


@dataclass(frozen=True)
class IntegerFormat:
    """Two's complement or unsigned integers of 2 to 8 bits.

    Attributes:
        name: As in `QuantSpec.format`.
        bits: Width of a code.
        signed: Whether codes are negative too.
        dtype: The ONNX data type that stores them.
        opset: The lowest opset whose QuantizeLinear and DequantizeLinear take that type.
    """

    name: str
    bits: int
    signed: bool
    dtype: ir.DataType
    opset: int

    @property
    def qmin(self) -> int:
        """The lowest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The highest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The code that stands for real zero in a symmetric quantization."""
        return 0 if self.signed else 1 << (self.bits - 1)

    @property
    def carrier(self) -> np.dtype[np.int8] | np.dtype[np.uint8]:
        """The numpy dtype that holds one unpacked code."""
        return np.dtype(np.int8) if self.signed else np.dtype(np.uint8)

    def tensor(self, codes: Array, name: str | None = None) -> ir.Tensor[Array]:
        """Unpacked `codes` (int8 or uint8, any shape) as an ONNX tensor, packed if below 8 bits."""
        return ir.Tensor(codes.astype(self.dtype.numpy(), copy=False), dtype=self.dtype, name=name)
