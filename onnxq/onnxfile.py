"""Writing an ONNX file weight by weight.

A protobuf message must be in memory to be serialized, weights included. But its encoding is simple:
a field is a tag, a length and bytes. So the model without its large weights is serialized as usual,
and each of those is appended as the field `graph.initializer` that it is, computed, written and
dropped before the next (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

Layout: TypeAlias = Literal["inside", "beside"]
_Streamed: TypeAlias = list[tuple[onnx.TensorProto, ir.TensorProtocol]]

_STREAMED_BYTES = 1024  # smaller weights are written with the graph
_ALIGNMENT = 64  # of weights in a data file: what vector loads want

# Field numbers of onnx.proto, as the tag of a length-delimited field.
_MODEL_GRAPH = bytes([7 << 3 | 2])
GRAPH_INITIALIZER = bytes([5 << 3 | 2])
_TENSOR_RAW_DATA = bytes([9 << 3 | 2])


def stored_bytes(model: ir.Model) -> int:
    """The bytes that the weights of `model` take in a file."""
    graphs = (model.graph, *model.graph.subgraphs())
    tensors = (value.const_value for graph in graphs for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def file_bytes(model: ir.Model) -> int:
    """The bytes that `model` takes in files of any layout at most; no weight is read."""
    streamed, skeleton = _skeleton(model, "model.onnx.data")
    return int(skeleton.ByteSize()) + sum(tensor.nbytes + _ALIGNMENT for _, tensor in streamed)


def write_model(
    model: ir.Model, path: Path, layout: Layout, on_weight: Callable[[], None] | None = None
) -> None:
    """Write `model` to `path`, with its weights inside or in `path` + ".data" beside it."""
    data = f"{path.name}.data"
    streamed, skeleton = _skeleton(model, data)
    if layout == "inside":
        _write_inside(skeleton, streamed, path, on_weight)
        return
    path.write_bytes(skeleton.SerializeToString())
    with path.with_name(data).open("wb") as file:
        for proto, tensor in streamed:
            offset = next(int(e.value) for e in proto.external_data if e.key == "offset")
            file.write(b"\0" * (offset - file.tell()))
            _write_tensor(tensor, file, on_weight)


def write_outline(model: ir.Model, whole: Path, outline: Path) -> None:
    """Write to `outline` the same model as `whole`, a file of layout "inside", without its weights.

    They are references into `whole`, so a reader of the outline maps them instead of holding them
    in memory. Both files must be in one folder.
    """
    streamed, skeleton = _skeleton(model, whole.name)
    # The weights are the last bytes of the file, each behind its header.
    end = whole.stat().st_size
    for proto, tensor in reversed(streamed):
        start = end - tensor.nbytes
        header = _without_data(proto).SerializeToString()
        size = _tensor_size(header, tensor)
        end -= size + len(field_header(GRAPH_INITIALIZER, size))
        for entry in proto.external_data:
            if entry.key == "offset":
                entry.value = str(start)
    outline.write_bytes(skeleton.SerializeToString())


def _write_inside(
    skeleton: onnx.ModelProto,
    streamed: _Streamed,
    path: Path,
    on_weight: Callable[[], None] | None,
) -> None:
    fields = [(_without_data(proto).SerializeToString(), tensor) for proto, tensor in streamed]
    graph = onnx.GraphProto()
    graph.CopyFrom(skeleton.graph)
    del graph.initializer[:]
    graph.initializer.extend(t for t in skeleton.graph.initializer if not t.external_data)
    head = graph.SerializeToString()
    skeleton.ClearField("graph")
    with path.open("wb") as file:
        file.write(skeleton.SerializeToString())
        sizes = [_tensor_size(header, tensor) for header, tensor in fields]
        total = len(head) + sum(len(field_header(GRAPH_INITIALIZER, size)) + size for size in sizes)
        file.write(field_header(_MODEL_GRAPH, total) + head)
        for (header, tensor), size in zip(fields, sizes, strict=True):
            file.write(field_header(GRAPH_INITIALIZER, size) + header)
            file.write(field_header(_TENSOR_RAW_DATA, tensor.nbytes))
            _write_tensor(tensor, file, on_weight)


def _skeleton(model: ir.Model, data: str) -> tuple[_Streamed, onnx.ModelProto]:
    """The model with its large weights as references into `data`, and those weights in order."""
    outline = model.clone()
    tensors: list[ir.TensorProtocol] = []
    offset = 0
    for value in outline.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < _STREAMED_BYTES:
            continue
        offset = -(-offset // _ALIGNMENT) * _ALIGNMENT
        value.const_value = ir.ExternalTensor(
            data,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
        offset += tensor.nbytes
        tensors.append(tensor)
    skeleton = ir.to_proto(outline)
    protos = [proto for proto in skeleton.graph.initializer if proto.external_data]
    return list(zip(protos, tensors, strict=True)), skeleton


def _without_data(proto: onnx.TensorProto) -> onnx.TensorProto:
    header = onnx.TensorProto()
    header.CopyFrom(proto)
    header.ClearField("external_data")
    header.ClearField("data_location")
    return header


def _tensor_size(header: bytes, tensor: ir.TensorProtocol) -> int:
    return len(header) + len(field_header(_TENSOR_RAW_DATA, tensor.nbytes)) + tensor.nbytes


def field_header(tag: bytes, size: int) -> bytes:
    """What stands before the `size` bytes of a field."""
    varint = bytearray()
    while size > 0x7F:
        varint.append(size & 0x7F | 0x80)
        size >>= 7
    varint.append(size)
    return tag + bytes(varint)


def release(tensor: ir.TensorProtocol) -> None:
    """Unmap the file that a tensor lies in, if it does, until its values are asked for again."""
    if isinstance(tensor, ir.ExternalTensor):
        try:
            tensor.release()
        except BufferError:  # an array is in use, and the file is unmapped when that is dropped
            tensor.raw = None


def _write_tensor(
    tensor: ir.TensorProtocol, file: BinaryIO, on_weight: Callable[[], None] | None
) -> None:
    start = file.tell()
    if tensor.dtype.bitwidth < 8 or sys.byteorder == "big":
        file.write(tensor.tobytes())
    else:
        file.write(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    release(tensor)
    if file.tell() - start != tensor.nbytes:
        raise ValueError(
            f"Weight '{tensor.name}' wrote {file.tell() - start} bytes; its type and shape "
            f"({tensor.dtype}, {tensor.shape}) ask for {tensor.nbytes}."
        )
    if on_weight is not None:
        on_weight()
