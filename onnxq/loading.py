"""Reading models: from a file, whose weights stay there, or from what a program has in memory.

What ONNX Runtime loads is loaded, whatever `onnx.checker` says of it; see `onnxq.normal`. Tensors
in files of their own are checked here: the files are there, hold them, and are in the model's
folder.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from onnxq.errors import ModelError, OnnxqError
from onnxq.externals import external_tensors, read_when_asked, tensors
from onnxq.normal import made_dense, require_in_order, require_types, set_in_order
from onnxq.weightfile import WeightInFile, read_outline

if TYPE_CHECKING:
    import onnx
    import torch

    ModelLike: TypeAlias = (
        str | os.PathLike[str] | ir.Model | onnx.ModelProto | torch.onnx.ONNXProgram
    )

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
        own = _copy_of(exported)
    else:
        own = _from_proto(exported)
        _require_inside(own)
    for value in own.graph.initializers.values():
        # Renaming a value renames its tensor, and the tensor is the caller's.
        value.const_value = copy.copy(value.const_value)
    return own


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
    for tensor in external_tensors(model):
        tensor.base_dir = str(path.parent)
        _check_external(tensor, path)
    read_when_asked(model)
    model.meta[_SOURCE] = str(path)
    return model


def _from_proto(proto: onnx.ModelProto, name: str = "the model") -> ir.Model:
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise ModelError(
            f"'{name}' holds no ONNX graph: it has {len(proto.graph.node)} nodes, "
            f"{len(proto.graph.output)} outputs and {len(proto.opset_import)} opset imports.",
            "Check that it is an ONNX model, and that it was copied whole.",
        )
    require_types(proto, name)
    try:
        model = ir.from_proto(made_dense(proto))
    except ModelError:
        raise
    except Exception as failure:  # deserialisation wraps whatever it met
        raise ModelError(
            f"'{name}' is not a valid ONNX model: {_first_line(failure)}.", "Export it again."
        ) from failure
    for tensor, *_ in tensors(model):
        if isinstance(tensor, ir.serde.TensorProtoTensor):
            _check_size(tensor, name)
    set_in_order(model, name)
    return model


def _copy_of(model: ir.Model) -> ir.Model:
    require_in_order(model)
    own = model.clone()
    own.meta.update(model.meta)
    set_in_order(own)
    read_when_asked(own)
    return own


def _require_inside(model: ir.Model) -> None:
    for tensor in external_tensors(model):
        raise ModelError(
            f"The weight '{tensor.name}' is in the file '{tensor.location}', and an "
            "onnx.ModelProto does not say in which folder.",
            "Give the path of the model, or read its weights with onnx.load(path).",
        )


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
    if tensor.length not in (None, 0, tensor.nbytes):
        raise ModelError(
            f"{where} with {tensor.length} bytes; its shape {tensor.shape} of "
            f"{tensor.dtype.name.lower()} takes {tensor.nbytes}.",
            "The file is damaged: export or copy it again.",
        )
    file = model_path.parent / location
    if not file.is_file():
        raise ModelError(f"{where}, which does not exist.", f"Copy it to '{file.parent}'.")
    end = (tensor.offset or 0) + tensor.nbytes
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


def data_files(model: ir.Model) -> list[Path]:
    """The files beside the model that hold tensors of it, sorted."""
    return sorted(set(_data_files(model)))


def source_files(model: ir.Model) -> Iterator[Path]:
    """The files that `model` was read from, or is still to be read from."""
    if _SOURCE in model.meta:
        yield Path(model.meta[_SOURCE]).resolve()
    yield from (path.resolve() for path in _data_files(model))


def _data_files(model: ir.Model) -> Iterator[Path]:
    source = Path(model.meta[_SOURCE]).resolve() if _SOURCE in model.meta else None
    for tensor, *_ in tensors(model):
        if isinstance(tensor, ir.ExternalTensor | WeightInFile):
            path = Path(tensor.path)
            if path.resolve() != source:
                yield path


def _first_line(failure: Exception) -> str:
    if isinstance(failure, OnnxqError):
        return failure.what
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0].rstrip(".")
