"""A weight that is quantized when it is written, and forgotten when it has been."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.errors import ModelError, NotFiniteError
from onnxq.onnxfile import release
from onnxq.passes.weights import WeightAlgorithm
from onnxq.types import Array, QTensor, QuantSpec

_LARGEST_HALF = 65504


class LazyWeight:
    """A weight and the way to quantize it.

    Its parts (codes, scale, zero point) become tensors of the model, made by `part`. Reading the
    first of them quantizes the weight; once every part was read the result is dropped, so that
    writing a model holds one weight at a time.

    Args:
        source: The float weight.
        spec: What to quantize it to.
        algorithm: How.
    """

    def __init__(
        self, source: ir.TensorProtocol, spec: QuantSpec, algorithm: WeightAlgorithm
    ) -> None:
        self.source = source
        self.spec = spec
        self._algorithm = algorithm
        self._quantized: QTensor | None = None
        self._parts = 0
        self._read: set[int] = set()

    def part(
        self, make: Callable[[QTensor], Array], dtype: ir.DataType, shape: Sequence[int]
    ) -> ir.LazyTensor:
        """A tensor of `dtype` and `shape` (unpacked), which `make` takes out of the result."""
        index = self._parts
        self._parts += 1

        def evaluate() -> ir.Tensor[Array]:
            array = make(self._result(index))
            if array.shape != tuple(shape):
                raise ValueError(f"A part of {self.source.name} is {array.shape}, not {shape}.")
            return ir.Tensor(array.astype(dtype.numpy(), copy=False), dtype=dtype)

        return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(shape))

    def _result(self, part: int) -> QTensor:
        quantized = self._quantized or self._quantize()
        self._read.add(part)
        done = len(self._read) == self._parts
        if done:
            self._read.clear()
        self._quantized = None if done else quantized
        return quantized

    def _quantize(self) -> QTensor:
        try:
            quantized = self._algorithm(self.source.numpy(), self.spec)
            self._require_fitting(quantized)
            return quantized
        except NotFiniteError as failure:
            raise not_finite(self.source) from failure
        finally:
            release(self.source)

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


def not_finite(weight: ir.TensorProtocol) -> ModelError:
    """What is wrong with a weight that holds NaN or infinity."""
    return ModelError(
        f"The weight '{weight.name}' holds NaN or infinity.",
        "Repair the model, or keep the nodes that read it in float with --exclude.",
    )
