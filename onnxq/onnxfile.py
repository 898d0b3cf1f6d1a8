"""Writing an ONNX file weight by weight.

A protobuf message must be in memory to be serialized, weights included. But its encoding is simple:
a field is a tag, a length and bytes. So the model without its large weights is serialized as usual,
and each of those is appended as the field `graph.initializer` that it is, computed, written and
dropped before the next (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from onnxq.errors import OnnxqError
from onnxq.externals import read_when_asked
from onnxq.fields import GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_RAW_DATA, field_header
from onnxq.writebehind import WriteBehind

Layout: TypeAlias = Literal["inside", "beside"]

_STREAMED_BYTES = 1024  # smaller weights are written with the graph
_ALIGNMENT = 64  # of weights in a data file: what vector loads want


class _Streamed(NamedTuple):
    """A weight that is written by itself: what stands for it in the graph, and its place."""

    proto: onnx.TensorProto
    tensor: ir.TensorProtocol
    file: str
    offset: int


def stored_bytes(model: ir.Model) -> int:
    """The bytes that the weights of `model` take in a file."""
    graphs = (model.graph, *model.graph.subgraphs())
    tensors = (value.const_value for graph in graphs for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def file_bytes(model: ir.Model) -> int:
    """The bytes that `model` takes in files of any layout at most; no weight is read."""
    streamed, skeleton = _skeleton(model, "model.onnx.data")
    return int(skeleton.ByteSize()) + sum(w.tensor.nbytes + _ALIGNMENT for w in streamed)


def write_model(
    model: ir.Model,
    path: Path,
    layout: Layout,
    on_weight: Callable[[], None] | None = None,
    *,
    shard_bytes: int | None = None,
    waiting_bytes: int = 0,
) -> None:
    """Write `model` to `path`, with its weights inside or in `path` + ".data" beside it.

    Args:
        model: Weights are computed one by one, each while the one before is written.
        path: The ONNX file.
        layout: Where the weights are.
        on_weight: Called after each of them.
        shard_bytes: What a file of weights beside the model may hold, if they shall be several,
            `path` + ".data-00001-of-00003" and so on. A weight that is larger has one of its own.
        waiting_bytes: How much that was computed may wait to be written; if less than a weight
            takes, one weight.
    """
    streamed, skeleton = _skeleton(model, f"{path.name}.data", shard_bytes)
    if layout == "inside":
        _write_inside(skeleton, streamed, path, on_weight, waiting_bytes)
        return
    path.write_bytes(skeleton.SerializeToString())
    for name, weights in groupby(streamed, key=lambda weight: weight.file):
        with path.with_name(name).open("wb") as file, WriteBehind(file, waiting_bytes) as behind:
            end = 0
            for weight in weights:
                padding = b"\0" * (weight.offset - end)
                _write_tensor(padding, weight.tensor, behind, on_weight)
                end = weight.offset + weight.tensor.nbytes


def write_outline(model: ir.Model, whole: Path, outline: Path) -> None:
    """Write to `outline` the same model as `whole`, a file of layout "inside", without its weights.

    They are references into `whole`, so a reader of the outline maps them instead of holding them
    in memory. Both files must be in one folder.
    """
    streamed, skeleton = _skeleton(model, whole.name)
    # The weights are the last bytes of the file, each behind its header.
    end = whole.stat().st_size
    for proto, tensor, *_ in reversed(streamed):
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
    streamed: Sequence[_Streamed],
    path: Path,
    on_weight: Callable[[], None] | None,
    waiting_bytes: int,
) -> None:
    fields = [(_without_data(w.proto).SerializeToString(), w.tensor) for w in streamed]
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
        file.write(field_header(MODEL_GRAPH, total) + head)
        with WriteBehind(file, waiting_bytes) as behind:
            for (header, tensor), size in zip(fields, sizes, strict=True):
                start = field_header(GRAPH_INITIALIZER, size) + header
                start += field_header(TENSOR_RAW_DATA, tensor.nbytes)
                _write_tensor(start, tensor, behind, on_weight)


def _skeleton(
    model: ir.Model, data: str, shard_bytes: int | None = None
) -> tuple[list[_Streamed], onnx.ModelProto]:
    """The model with its large weights as references into `data`, and those weights in order."""
    outline = model.clone()
    read_when_asked(outline, weights_below=_STREAMED_BYTES)
    large = [
        (value, value.const_value)
        for value in outline.graph.initializers.values()
        if value.const_value is not None and _is_streamed(value.const_value)
    ]
    places = _places([tensor.nbytes for _, tensor in large], data, shard_bytes)
    for (value, tensor), (file, offset) in zip(large, places, strict=True):
        value.const_value = ir.ExternalTensor(
            file,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
    skeleton = as_proto(outline)
    protos = [proto for proto in skeleton.graph.initializer if proto.external_data]
    return [
        _Streamed(proto, tensor, *place)
        for proto, (_, tensor), place in zip(protos, large, places, strict=True)
    ], skeleton


def as_proto(model: ir.Model) -> onnx.ModelProto:
    """`model` as a message, for which its weights are computed.

    Raises:
        OnnxqError: A weight cannot be computed.
    """
    try:
        return ir.to_proto(model)
    except ir.serde.SerdeError as failure:
        cause: BaseException | None = failure
        while cause is not None and not isinstance(cause, OnnxqError):
            cause = cause.__cause__
        raise cause or failure from failure


def _is_streamed(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _STREAMED_BYTES


def holds_weights_of(file: Path, model: Path) -> bool:
    """Whether `write_model` may write weights of `model` to `file`."""
    name = rf"{re.escape(model.name)}\.data(-\d{{5,}}-of-\d{{5,}})?"
    return file.parent == model.parent and re.fullmatch(name, file.name) is not None


def _places(sizes: Sequence[int], name: str, shard_bytes: int | None) -> list[tuple[str, int]]:
    """The file of each weight, and where it starts in that."""
    shard, end, found = 0, 0, []
    for size in sizes:
        offset = -(-end // _ALIGNMENT) * _ALIGNMENT
        if shard_bytes is not None and offset and offset + size > shard_bytes:
            shard, offset = shard + 1, 0
        found.append((shard, offset))
        end = offset + size
    if shard == 0:
        return [(name, offset) for _, offset in found]
    return [(f"{name}-{at + 1:05}-of-{shard + 1:05}", offset) for at, offset in found]


def _without_data(proto: onnx.TensorProto) -> onnx.TensorProto:
    header = onnx.TensorProto()
    header.CopyFrom(proto)
    header.ClearField("external_data")
    header.ClearField("data_location")
    return header


def _tensor_size(header: bytes, tensor: ir.TensorProtocol) -> int:
    return len(header) + len(field_header(TENSOR_RAW_DATA, tensor.nbytes)) + tensor.nbytes


def release(tensor: ir.TensorProtocol) -> None:
    """Unmap the file that a tensor lies in, if it does, until its values are asked for again."""
    if isinstance(tensor, ir.ExternalTensor):
        try:
            tensor.release()
        except BufferError:  # an array is in use, and the file is unmapped when that is dropped
            tensor.raw = None


def _write_tensor(
    start: bytes,
    tensor: ir.TensorProtocol,
    behind: WriteBehind,
    on_weight: Callable[[], None] | None,
) -> None:
    """Compute `tensor`, and write it after `start`."""
    if tensor.dtype.bitwidth < 8 or sys.byteorder == "big":
        data = memoryview(tensor.tobytes())
    else:
        data = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data
    release(tensor)
    if data.nbytes != tensor.nbytes:
        raise ValueError(
            f"Weight '{tensor.name}' has {data.nbytes} bytes; its type and shape "
            f"({tensor.dtype}, {tensor.shape}) ask for {tensor.nbytes}."
        )
    behind.write(start, data)
    if on_weight is not None:
        on_weight()
