"""Part of a tensor in another shape, which stays where the tensor is until its values are read.

The elements of a part follow each other in memory: an expert of a stack of matrices, or the matrix
that a kernel of size 1 is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from onnxq.onnxfile import release
from onnxq.types import Array
from onnxq.weightfile import WeightInFile


def view(tensor: ir.TensorProtocol, shape: Sequence[int], first: int = 0) -> ir.TensorProtocol:
    """The elements of `tensor` from the one numbered `first` on, in C order, as a new tensor.

    Args:
        tensor: Of a type of whole bytes. One in a file becomes another one there; what is computed
            when it is read is computed again for each view.
        shape: Of the view.
        first: Counted from 0.
    """
    size, start = math.prod(shape), int(first * tensor.dtype.itemsize)
    if isinstance(tensor, WeightInFile):
        return tensor.part(shape, start)
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            (tensor.offset or 0) + start,
            int(size * tensor.dtype.itemsize),
            tensor.dtype,
            shape=ir.Shape(shape),
            name=tensor.name,
            base_dir=tensor.base_dir,
        )

    def evaluate() -> ir.Tensor[Array]:
        array = tensor.numpy().reshape(-1)[first : first + size].reshape(tuple(shape))
        release(tensor)
        return ir.Tensor(array, tensor.dtype, name=tensor.name)

    if isinstance(tensor, ir.LazyTensor):
        return ir.LazyTensor(evaluate, tensor.dtype, ir.Shape(shape), name=tensor.name)
    return evaluate()
