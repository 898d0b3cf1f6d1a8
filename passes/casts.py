"""A float tensor in another float type, made when it is written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.onnxfile import release
from onnxq.types import Array


class CastTensor(ir.LazyTensor):
    """`source` in another float type.

    Args:
        source: Any tensor of floats, which is read whenever the values are asked for.
        dtype: The other type. What it cannot hold becomes infinite.
    """

    def __init__(self, source: ir.TensorProtocol, dtype: ir.DataType) -> None:
        super().__init__(self._cast, dtype, ir.Shape(source.shape.numpy()), name=source.name)
        self.source = source

    def _cast(self) -> ir.Tensor[Array]:
        with np.errstate(over="ignore"):
            array = self.source.numpy().astype(self.dtype.numpy())
        release(self.source)
        return ir.Tensor(array, self.dtype, name=self.name)


def uncast(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """What a tensor was made from, if it is a `CastTensor`."""
    return tensor.source if isinstance(tensor, CastTensor) else tensor
