"""A number format: the grid that codes lie on, and how they are stored in an ONNX tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxq.types import Array


@dataclass(frozen=True)
class NumberFormat(ABC):
    """A grid of codes.

    Attributes:
        name: As in `QuantSpec.format`.
        bits: Width of a code.
        dtype: The ONNX data type that stores them.
        opset: The lowest opset whose QuantizeLinear and DequantizeLinear take that type.
    """

    name: str
    bits: int
    dtype: ir.DataType
    opset: int

    @property
    @abstractmethod
    def short(self) -> str:
        """What reports call it: "int8", "fp8"."""

    @property
    @abstractmethod
    def qmin(self) -> int:
        """The lowest code."""

    @property
    @abstractmethod
    def qmax(self) -> int:
        """The highest code."""

    @property
    @abstractmethod
    def middle(self) -> int:
        """The code that stands for real zero in a symmetric quantization."""

    @property
    @abstractmethod
    def carrier(self) -> np.dtype[Any]:
        """The numpy dtype that holds one unpacked code."""

    @abstractmethod
    def nearest(self, scaled: Array) -> Array:
        """The codes nearest to `scaled` (ties to even), as floats; beyond the ends, the ends."""

    def values(self, codes: Array) -> Array:
        """What `codes` stand for at a scale of 1 and a zero point of 0, in float32."""
        return codes.astype(np.float32)

    def tensor(self, codes: Array, name: str | None = None) -> ir.Tensor[Array]:
        """Unpacked `codes` (of any shape) as an ONNX tensor, packed if below 8 bits."""
        return ir.Tensor(codes.astype(self.dtype.numpy(), copy=False), dtype=self.dtype, name=name)


@dataclass(frozen=True)
class IntegerFormat(NumberFormat):
    """Two's complement or unsigned integers of 2 to 16 bits.

    Attributes:
        signed: Whether codes are negative too.
    """

    signed: bool

    @property
    def short(self) -> str:
        """See `NumberFormat.short`: the integers that kernels multiply, signed or not."""
        return f"int{self.dtype.bitwidth}"

    @property
    def qmin(self) -> int:
        """See `NumberFormat.qmin`."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """See `NumberFormat.qmax`."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """See `NumberFormat.middle`."""
        return 0 if self.signed else 1 << (self.bits - 1)

    @property
    def carrier(self) -> np.dtype[Any]:
        """See `NumberFormat.carrier`."""
        kind = "int" if self.signed else "uint"
        return np.dtype(f"{kind}{max(self.bits, 8)}")

    def nearest(self, scaled: Array) -> Array:
        """See `NumberFormat.nearest`."""
        return np.clip(np.rint(scaled), self.qmin, self.qmax)


@dataclass(frozen=True)
class FloatFormat(NumberFormat):
    """Floats of 8 bits without infinities: a sign, an exponent, a mantissa.

    Attributes:
        largest: The largest finite value, which is a whole number.
    """

    largest: int

    @property
    def short(self) -> str:
        """See `NumberFormat.short`."""
        return f"fp{self.bits}"

    @property
    def qmin(self) -> int:
        """See `NumberFormat.qmin`."""
        return -self.largest

    @property
    def qmax(self) -> int:
        """See `NumberFormat.qmax`."""
        return self.largest

    @property
    def middle(self) -> int:
        """See `NumberFormat.middle`."""
        return 0

    @property
    def carrier(self) -> np.dtype[Any]:
        """See `NumberFormat.carrier`."""
        return self.dtype.numpy()

    def nearest(self, scaled: Array) -> Array:
        """See `NumberFormat.nearest`: QuantizeLinear's `saturate`, which is its default."""
        # A plain cast makes NaN of what is too large.
        clipped = np.clip(scaled, self.qmin, self.qmax)
        if clipped.dtype == np.float32:
            return _rounded(clipped, ml_dtypes.finfo(self.carrier))  # type: ignore[no-untyped-call]
        return clipped.astype(self.carrier).astype(scaled.dtype)


@dataclass(frozen=True)
class CodebookFormat(NumberFormat):
    """Codes that number values of any spacing, from -1 to 1.

    Attributes:
        levels: The values, ascending; 0 is one of them.
    """

    levels: tuple[float, ...]

    @property
    def short(self) -> str:
        """See `NumberFormat.short`."""
        return self.name

    @property
    def qmin(self) -> int:
        """See `NumberFormat.qmin`."""
        return 0

    @property
    def qmax(self) -> int:
        """See `NumberFormat.qmax`."""
        return len(self.levels) - 1

    @property
    def middle(self) -> int:
        """See `NumberFormat.middle`."""
        return self.levels.index(0.0)

    @property
    def carrier(self) -> np.dtype[Any]:
        """See `NumberFormat.carrier`."""
        return np.dtype(np.uint8)

    @property
    def edges(self) -> tuple[float, ...]:
        """Half way between each level and the next."""
        return tuple((a + b) / 2 for a, b in pairwise(self.levels))

    def nearest(self, scaled: Array) -> Array:
        """See `NumberFormat.nearest`; of two levels as near, the lower one."""
        edges = np.array(self.edges, np.float32)
        return np.searchsorted(edges, scaled, side="left").astype(np.float32)

    def values(self, codes: Array) -> Array:
        """See `NumberFormat.values`."""
        return np.array(self.levels, np.float32)[codes]


def _rounded(values: Array, kind: ml_dtypes.finfo) -> Array:
    """float32 `values` to the mantissa of `kind`, as a cast there and back does, only faster."""
    dropped = np.uint32(23 - kind.nmant)
    bits = values.view(np.uint32)
    half = np.uint32((1 << (int(dropped) - 1)) - 1)
    rounded = (bits + half + (bits >> dropped & np.uint32(1))) >> dropped << dropped
    step = np.float32(kind.smallest_subnormal)
    even = np.rint(values / step) * step
    return np.where(np.abs(values) < kind.smallest_normal, even, rounded.view(np.float32))
