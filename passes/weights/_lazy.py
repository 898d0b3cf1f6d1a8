"""A weight that is quantized when it is written, and forgotten when it has been."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq.errors import ModelError, NotFiniteError
from onnxq.onnxfile import release
from onnxq.passes.weights import WeightAlgorithm
from onnxq.types import Array, PerBlock, QTensor, QuantSpec

_LARGEST_HALF = 65504
# Codes made at once by a thread, to be packed while they are in the cache, and the outputs that
# kernels take at once.
_CODES, _PANEL = 1 << 20, 256
_STRIPES_PER_THREAD = 4


@dataclass(frozen=True)
class _Part:
    """What `LazyWeight.part` was asked for."""

    make: Callable[[QTensor], Array]
    dtype: ir.DataType
    shape: tuple[int, ...]
    outputs: int | None


class LazyWeight:
    """A weight and the way to quantize it.

    Its parts (codes, scale, zero point) become tensors of the model, made by `part`. Reading the
    first of them quantizes the weight; once every part was read the result is dropped, so that
    writing a model holds one weight at a time.

    Args:
        source: The float weight.
        spec: What to quantize it to.
        algorithm: How.
        by_output: Whether it quantizes each output of a matrix by itself, so that it can be asked
            for some of them at a time.
    """

    def __init__(
        self,
        source: ir.TensorProtocol,
        spec: QuantSpec,
        algorithm: WeightAlgorithm,
        *,
        by_output: bool = False,
    ) -> None:
        self.source = source
        self.spec = spec
        self._algorithm = algorithm
        self._by_output = by_output
        self._parts: list[_Part] = []
        self._made: list[Array] = []
        self._read: set[int] = set()

    def part(
        self,
        make: Callable[[QTensor], Array],
        dtype: ir.DataType,
        shape: Sequence[int],
        outputs: int | None = None,
    ) -> ir.LazyTensor:
        """A tensor of `dtype` and `shape` (unpacked), which `make` takes out of the result.

        Args:
            make: What it is, of the weight or of some of its outputs.
            dtype: Of the tensor.
            shape: Likewise.
            outputs: Its axis of the outputs of the weight, if it has one.
        """
        index = len(self._parts)
        self._parts.append(_Part(make, dtype, tuple(shape), outputs))

        def evaluate() -> ir.Tensor[Array]:
            made = self._made or self._make()
            self._read.add(index)
            done = len(self._read) == len(self._parts)
            if done:
                self._read.clear()
            self._made = [] if done else made
            return ir.Tensor(made[index], dtype=dtype)

        return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(shape))

    def _make(self) -> list[Array]:
        """All parts."""
        try:
            weight = self.source.numpy()
            width = self._stripe_width(weight)
            return self._at_once(weight) if width is None else self._in_stripes(weight, width)
        except NotFiniteError as failure:
            raise not_finite(self.source) from failure
        finally:
            release(self.source)

    def _stripe_width(self, weight: Array) -> int | None:
        """How many outputs are quantized at a time; None for all of them, shared by all threads."""
        from onnxq.kernels import threads  # noqa: PLC0415

        granularity = self.spec.granularity
        apart = self._by_output and all(part.outputs is not None for part in self._parts)
        if not apart or weight.ndim != 2 or not isinstance(granularity, PerBlock):
            return None
        length, outputs = weight.shape[granularity.axis], weight.shape[1 - granularity.axis]
        width = max(_PANEL, _CODES // length // _PANEL * _PANEL)
        return width if outputs >= width * _STRIPES_PER_THREAD * threads.count() else None

    def _at_once(self, weight: Array) -> list[Array]:
        """All parts, made of all outputs, by all threads."""
        made = self._made_of(weight)
        for part, array in zip(self._parts, made, strict=True):
            self._require_shape(array, part.shape)
        return made

    def _in_stripes(self, weight: Array, width: int) -> list[Array]:
        """All parts, made of `width` outputs at a time, each by one thread."""
        from onnxq.kernels import threads  # noqa: PLC0415

        assert isinstance(self.spec.granularity, PerBlock)
        axis = 1 - self.spec.granularity.axis
        made = [np.empty(part.shape, part.dtype.numpy()) for part in self._parts]

        def work(first: int, last: int) -> None:
            for start in range(first * width, min(last * width, weight.shape[axis]), width):
                some = slice(start, start + width)
                found = self._made_of(weight[_along(axis, some)])
                for part, whole, piece in zip(self._parts, made, found, strict=True):
                    assert part.outputs is not None
                    place = whole[_along(part.outputs, some)]
                    self._require_shape(piece, place.shape)
                    place[...] = piece

        threads.shared(work, -(-weight.shape[axis] // width))
        return made

    def _made_of(self, weight: Array) -> list[Array]:
        """What all parts are of `weight`, the source or some of its outputs."""
        quantized = self._algorithm(weight, self.spec)
        self._require_fitting(quantized)
        return [part.make(quantized).astype(part.dtype.numpy(), copy=False) for part in self._parts]

    def _require_shape(self, array: Array, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise ValueError(f"A part of {self.source.name} is {array.shape}, not {shape}.")

    def _require_fitting(self, quantized: QTensor) -> None:
        """Fail on a scale that the search had to cut off at the end of float16."""
        if self.spec.scale_dtype != "float16" or not quantized.params.scale.size:
            return
        if np.abs(quantized.params.scale).max() >= _LARGEST_HALF:
            raise ModelError(
                f"The weight '{self.source.name}' is too large for scales in float16.",
                "Ask for activations in another type, or keep the nodes that read it in float "
                "with --exclude.",
            )


def _along(axis: int, some: slice) -> tuple[slice, ...]:
    """An index of `some` of `axis`."""
    return (*(slice(None),) * axis, some)


def not_finite(weight: ir.TensorProtocol) -> ModelError:
    """What is wrong with a weight that holds NaN or infinity."""
    return ModelError(
        f"The weight '{weight.name}' holds NaN or infinity.",
        "Repair the model, or keep the nodes that read it in float with --exclude.",
    )
