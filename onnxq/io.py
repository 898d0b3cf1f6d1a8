"""Loading and saving models: the policy.

A model is read without its weights, which stay memory-mapped. It is written weight by weight, into
a temporary folder beside the output, and gets its final name when it is whole and verified. An
input is never also an output, and never modified.
"""

from __future__ import annotations

import copy
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from onnxq.bytesize import in_bytes
from onnxq.errors import ModelError, OnnxqError, OutputError
from onnxq.onnxfile import Layout, holds_weights_of, stored_bytes, write_model, write_outline
from onnxq.weightfile import WeightInFile, read_outline

if TYPE_CHECKING:
    import onnx
    import torch

    ModelLike: TypeAlias = (
        str | os.PathLike[str] | ir.Model | onnx.ModelProto | torch.onnx.ONNXProgram
    )

# A protobuf message ends at 2 GiB, and readers hold it twice while they parse it.
SINGLE_FILE_LIMIT = 1_500_000_000
_LARGE = 200_000_000
_SOURCE = "onnxq.source"


def load(model: ModelLike) -> ir.Model:
    """The model as an `onnx_ir.Model` of its own, whose weights are read when they are needed.

    Args:
        model: The path of an ONNX file, an `onnx_ir.Model`, an `onnx.ModelProto`, or what
            `torch.onnx.export(..., dynamo=True)` returns. It is not modified: the result shares
            weights with it, nothing else.

    Raises:
        ModelError: The file is missing or not an ONNX model, or weights in external files are
            missing, cut short, or outside the model's folder.
    """
    if isinstance(model, (str, os.PathLike)):
        return _load_file(Path(model))
    exported: Any = getattr(model, "model", model)  # torch wraps the model it exports
    if isinstance(exported, ir.Model):
        own = exported.clone()
        own.meta.update(exported.meta)
    else:
        own = _from_proto(exported)
    for value in own.graph.initializers.values():
        # Renaming a value renames its tensor, and the tensor is the caller's.
        value.const_value = copy.copy(value.const_value)
    return own


def save(
    model: ModelLike,
    path: str | os.PathLike[str],
    *,
    external_data: bool = False,
    shard_size: int | str | None = None,
    memory_limit: int | str | None = None,
    check: Callable[[Path], None] | None = None,
    on_weight: Callable[[], None] | None = None,
) -> None:
    """Write `model` to `path`; weights not computed yet are computed here, one at a time.

    Models of more than 1.5 GB get their weights in one file beside it, named after it
    (`model.onnx.data`).

    Args:
        model: What to write, in any form that `load` takes. It is not modified.
        path: The ONNX file. Its folder must exist.
        external_data: Put the weights in a file beside the model whatever their size.
        shard_size: Put them in several such files (`model.onnx.data-00001-of-00003`) of at most so
            many bytes each, given as a number or as text such as "2GB"; a weight that is larger
            gets a file of its own.
        memory_limit: How much of the weights may be computed ahead while others are written, in
            bytes or as text; None, or less than a weight, for one weight.
        check: Called with the path of the finished file before it gets its final name. If it
            raises, nothing is left behind.
        on_weight: Called after each weight written.

    Raises:
        OutputError: The output cannot be written, would overwrite the input, or the disk is full.
        ModelError: See `load`.
        RecipeError: The size of a shard, or the limit, is no number of bytes.
    """
    path, shard_bytes = Path(path), in_bytes(shard_size, "size of a shard")
    waiting_bytes = in_bytes(memory_limit) or 0
    model = model if isinstance(model, ir.Model) else load(model)
    ensure_writable(path, model)
    size = stored_bytes(model)
    free = shutil.disk_usage(path.resolve().parent).free
    if size > free:
        raise OutputError(
            f"'{path}' needs {size / 1e6:.0f} MB, and its disk has {free / 1e6:.0f} MB free.",
            "Free some space, or write to another disk.",
        )
    beside = external_data or shard_bytes is not None or size > SINGLE_FILE_LIMIT
    layout: Layout = "beside" if beside else "inside"
    with staging(path) as folder:
        write_model(
            model,
            folder / path.name,
            layout,
            on_weight,
            shard_bytes=shard_bytes,
            waiting_bytes=waiting_bytes,
        )
        if check is not None:
            _check(check, model, folder / path.name, layout, size)
        # The data goes first: a model that names missing data is worse than data without a model.
        for written in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            os.replace(written, path.parent / written.name)


def ensure_writable(path: str | os.PathLike[str], model: ir.Model | None = None) -> None:
    """Check that `path` can be written, and that `model` was not read from it.

    Raises:
        OutputError: It cannot, or it was.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder.", "Name a file.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder '{path.parent}'.", "Create it first.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as failure:
        raise OutputError(
            f"The folder '{path.parent}' is not writable: {failure.strerror}.",
            "Write to another folder.",
        ) from failure
    if model is None:
        return
    whole = path.resolve()
    for used in _files_of(model):
        if used == whole or holds_weights_of(used, whole):
            raise OutputError(
                f"Writing '{path}' would overwrite the input file '{used}'.", "Choose another name."
            )


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, for what is not whole yet; gone when the block ends."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as failure:
        raise OutputError(f"'{path}' cannot be written: {failure.strerror}.") from failure
    try:
        yield folder
    except OSError as failure:
        why = "the disk is full" if failure.errno == errno.ENOSPC else failure.strerror
        raise OutputError(f"'{path}' cannot be written: {why}.") from failure
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(
    check: Callable[[Path], None], model: ir.Model, path: Path, layout: Layout, size: int
) -> None:
    """Check the file at `path`; a large one by its outline, which takes little memory to load."""
    if layout == "beside" or size < _LARGE:
        check(path)
        return
    outline = path.with_name(f"outline-of-{path.name}")
    write_outline(model, path, outline)
    check(outline)
    outline.unlink()


def _load_file(path: Path) -> ir.Model:
    if path.is_dir():
        raise ModelError(f"'{path}' is a folder.", "Name the .onnx file in it.")
    if not path.is_file():
        raise ModelError(f"There is no file '{path}'.", "Check the path.")
    path = path.absolute()
    try:
        proto, places = read_outline(path)
    except OSError as failure:
        raise ModelError(f"'{path}' cannot be read: {failure.strerror}.") from failure
    except Exception as failure:  # protobuf has several decode errors, of no common base
        raise ModelError(
            f"'{path}' is not an ONNX model, or it is cut short: {_first_line(failure)}.",
            "Export or copy it again.",
        ) from failure
    model = _from_proto(proto, str(path))
    _place(model, path, proto, places)
    ir.external_data.set_base_dir(model.graph, str(path.parent))
    for tensor in _external_tensors(model):
        _check_external(tensor, path)
    model.meta[_SOURCE] = str(path)
    return model


def _from_proto(proto: onnx.ModelProto, name: str = "the model") -> ir.Model:
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise ModelError(
            f"'{name}' holds no ONNX graph: it has {len(proto.graph.node)} nodes, "
            f"{len(proto.graph.output)} outputs and {len(proto.opset_import)} opset imports.",
            "Check that it is an ONNX model, and that it was copied whole.",
        )
    try:
        model = ir.from_proto(proto)
    except Exception as failure:  # deserialisation wraps whatever it met
        raise ModelError(
            f"'{name}' is not a valid ONNX model: {_first_line(failure)}.", "Export it again."
        ) from failure
    for tensor in _tensors(model):
        if isinstance(tensor, ir.serde.TensorProtoTensor):
            _check_size(tensor, name)
    return model


def _place(
    model: ir.Model, path: Path, proto: onnx.ModelProto, places: Mapping[str, tuple[int, int]]
) -> None:
    """Let the weights that were not read be read from the file when they are needed."""
    for tensor in proto.graph.initializer:
        if tensor.name in places:
            offset, size = places[tensor.name]
            weight = WeightInFile(path.resolve(), offset, tensor)
            _require_size(weight, size, str(path))
            model.graph.initializers[tensor.name].const_value = weight


def _check_size(tensor: ir.serde.TensorProtoTensor, model: str) -> None:
    proto = tensor.raw
    if proto.HasField("raw_data"):
        _require_size(tensor, len(proto.raw_data), model)


def _require_size(tensor: ir.TensorProtocol, size: int, model: str) -> None:
    if size != tensor.nbytes:
        raise ModelError(
            f"The weight '{tensor.name}' of '{model}' holds {size} bytes; its shape "
            f"{tensor.shape} of {tensor.dtype.name.lower()} takes {tensor.nbytes}.",
            "The file is damaged: export or copy it again.",
        )


def _check_external(tensor: ir.ExternalTensor, model_path: Path) -> None:
    location = Path(tensor.location)
    where = f"The weight '{tensor.name}' of '{model_path}' is in '{location}'"
    if location.is_absolute() or ".." in location.parts:
        raise ModelError(
            f"{where}, outside the model's folder.", "Move it beside the model and save again."
        )
    file = model_path.parent / location
    if not file.is_file():
        raise ModelError(f"{where}, which does not exist.", f"Copy it to '{file.parent}'.")
    end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
    size = file.stat().st_size
    if size < end:
        raise ModelError(
            f"{where}, which ends at byte {size}; the weight needs bytes up to {end}.",
            "The file is cut short or belongs to another model: copy it again.",
        )
    if file.is_symlink():
        # Model caches link to their blobs; the link itself is in the model's folder.
        target = file.resolve()
        tensor.base_dir = str(target.parent)
        tensor._location = target.name


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    return (tensor for tensor in _tensors(model) if isinstance(tensor, ir.ExternalTensor))


def data_files(model: ir.Model) -> list[Path]:
    """The files that hold weights of `model`, sorted."""
    return sorted({Path(tensor.path) for tensor in _external_tensors(model)})


def _files_of(model: ir.Model) -> Iterator[Path]:
    if _SOURCE in model.meta:
        yield Path(model.meta[_SOURCE]).resolve()
    for tensor in _external_tensors(model):
        yield Path(tensor.path).resolve()


def _first_line(failure: Exception) -> str:
    if isinstance(failure, OnnxqError):
        return failure.what
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0].rstrip(".")
