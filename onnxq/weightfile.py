"""Reading an ONNX file without its weights, each of which stays in the file until it is needed.

A protobuf message holds all its weights once it is parsed. But its encoding is simple: a field is a
tag, a length and bytes. So the bytes of large weights (the field `raw_data` of `graph.initializer`)
are skipped, the rest is parsed as usual, and where the bytes are is remembered
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.fields import GRAPH_INITIALIZER, field_header
from onnxq.types import Array

_LEFT_BYTES = 4096  # smaller weights are read with the graph
_BLOCK_BYTES = 1 << 20

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9  # field numbers of onnx.proto


class WeightInFile(ir.LazyTensor):
    """A weight that is read from its file whenever its values are asked for.

    Args:
        path: The file.
        offset: Where its bytes are.
        proto: Its name, type and shape.
    """

    def __init__(self, path: Path, offset: int, proto: onnx.TensorProto) -> None:
        dtype = ir.DataType(proto.data_type)
        super().__init__(self._read, dtype, ir.Shape(proto.dims), name=proto.name)
        self.path = path
        self.offset = offset
        self._state = _state(path)

    def tofile(self, file: Any) -> None:  # noqa: ANN401
        """Copy the bytes to `file`, in blocks."""
        with self._opened() as source:
            source.seek(self.offset)
            for start in range(0, self.nbytes, _BLOCK_BYTES):
                file.write(source.read(min(_BLOCK_BYTES, self.nbytes - start)))

    def mapped(self) -> Array:
        """The weight, whose codes have whole bytes, mapped into memory."""
        with self._opened() as source:
            array: Array = np.memmap(
                source, self.dtype.numpy(), "r", self.offset, tuple(self.shape.numpy())
            )
        return array

    def part(self, shape: Sequence[int], start: int) -> WeightInFile:
        """The weight of `shape` whose bytes are the `start`-th of this one and those behind."""
        proto = onnx.TensorProto(name=self.name, data_type=int(self.dtype), dims=shape)
        part = WeightInFile(self.path, self.offset + start, proto)
        part._state = self._state
        return part

    def _read(self) -> ir.Tensor[Array]:
        """The weight; codes of less than a byte are unpacked."""
        with self._opened() as source:
            stored = np.fromfile(source, np.uint8, self.nbytes, offset=self.offset)
        if self.dtype.bitwidth < 8:
            proto = onnx.TensorProto(dims=self.shape.numpy(), data_type=int(self.dtype))
            proto.raw_data = stored.tobytes()
            array = ir.serde.TensorProtoTensor(proto).numpy()
        else:
            array = stored.view(self.dtype.numpy()).reshape(self.shape.numpy())
        return ir.Tensor(array, self.dtype, name=self.name)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The file, which must be what it was.

        Raises:
            ModelError: It is not, or it cannot be read.
        """
        where = f"The weight '{self.name}' cannot be read from '{self.path}'"
        try:
            with self.path.open("rb") as source:
                if _state(self.path) != self._state:
                    raise ModelError(f"{where}, which has changed.", "Load the model again.")
                yield source
        except OSError as failure:
            raise ModelError(
                f"{where}: {failure.strerror}.", "Keep the file until the result is saved."
            ) from failure


def refer_to_files(model: ir.Model) -> ir.Model:
    """The model with its weights in files as external tensors, which ONNX Runtime maps."""
    if not any(isinstance(v.const_value, WeightInFile) for v in model.graph.initializers.values()):
        return model
    clone = model.clone()
    for value in clone.graph.initializers.values():
        weight = value.const_value
        if isinstance(weight, WeightInFile):
            value.const_value = ir.ExternalTensor(
                weight.path.name,
                weight.offset,
                weight.nbytes,
                weight.dtype,
                shape=weight.shape,
                name=value.name or "",
                base_dir=weight.path.parent,
            )
    return clone


class Outline(NamedTuple):
    """A model without its large weights.

    Attributes:
        model: All of it but the bytes of those weights.
        places: Where each of them starts in the file and how many bytes it has, by its name.
    """

    model: onnx.ModelProto
    places: dict[str, tuple[int, int]]


def read_outline(path: Path) -> Outline:
    """Read the ONNX file at `path` without its large weights.

    Raises:
        OSError: It cannot be read.
        Exception: It is not an ONNX file.
    """
    model = onnx.ModelProto()
    places: dict[str, tuple[int, int]] = {}
    if path.stat().st_size == 0:  # which mmap refuses
        return Outline(model, places)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, start, content, end in _fields(data, 0, len(data)):
            if number == _MODEL_GRAPH:
                model.graph.MergeFromString(_graph(data, content, end, places))
            else:
                model.MergeFromString(data[start:end])
    return Outline(model, places)


def _graph(data: mmap.mmap, begin: int, finish: int, places: dict[str, tuple[int, int]]) -> bytes:
    """The bytes of a graph without those of its large weights, which are added to `places`."""
    kept = []
    for number, start, content, end in _fields(data, begin, finish):
        large = number == _GRAPH_INITIALIZER and end - content >= _LEFT_BYTES
        tensor = _tensor(data, content, end, places) if large else None
        kept.append(data[start:end] if tensor is None else tensor)
    return b"".join(kept)


def _tensor(
    data: mmap.mmap, begin: int, finish: int, places: dict[str, tuple[int, int]]
) -> bytes | None:
    """The field of a weight without its bytes; None if its values are not in `raw_data`."""
    kept, place = [], None
    for number, start, content, end in _fields(data, begin, finish):
        if number == _TENSOR_RAW_DATA:
            place = content, end - content
        else:
            kept.append(data[start:end])
    header = b"".join(kept)
    if place is None or place[1] < _LEFT_BYTES:
        return None
    proto = onnx.TensorProto.FromString(header)
    if proto.name in places:
        return None
    places[proto.name] = place
    return field_header(GRAPH_INITIALIZER, len(header)) + header


def _fields(data: mmap.mmap, begin: int, finish: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, start of the field, start and end of its content."""
    at = begin
    while at < finish:
        tag, content = _varint(data, at, finish)
        wire = tag & 7
        if wire == _BYTES:
            size, content = _varint(data, content, finish)
            end = content + size
        elif wire == _VARINT:
            _, end = _varint(data, content, finish)
        elif wire in (_FIXED64, _FIXED32):
            end = content + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"there is no field of wire type {wire}")
        if end > finish:
            raise ValueError("a field ends behind its message")
        yield tag >> 3, at, content, end
        at = end


def _varint(data: mmap.mmap, at: int, finish: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = shift = 0
    while at < finish and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number has no end")


def _state(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns
