"""ONNX Runtime: the only module that imports it, and only when a session is asked for.

`onnxruntime` and `onnxruntime-gpu` install the same module, so neither is a dependency of onnxq;
the extras `cpu` and `gpu` bring one or the other.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxq import io
from onnxq.errors import DataError, MissingPackageError, ModelError, OnnxqError, OutputError
from onnxq.onnxfile import as_proto, stored_bytes
from onnxq.types import Array
from onnxq.weightfile import refer_to_files

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]

_EXECUTION_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FED: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
_PROTOBUF_SAFE_BYTES = 1_500_000_000  # a protobuf ends at 2 GiB, and the graph needs room too
_FOLDER = "session.model_external_initializers_file_folder_path"
# It drops a Relu before codes whose zero point is their lowest; of float8 it takes 0 for that.
_WRONG_FOR_FLOAT8 = ("ReluQuantRewrite",)
_FUSE_QDQ = ("QDQSelectorActionTransformer",)
_FLOAT8 = (ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2)
_FATAL_ONLY = 4  # errors are raised as exceptions; they need not be printed as well


def session(
    model: ir.Model | str | os.PathLike[str],
    *,
    provider: str = "cpu",
    optimize: bool = True,
    memory_flat: bool = False,
    fuse_qdq: bool = True,
) -> ort.InferenceSession:
    """Load `model` into ONNX Runtime.

    Args:
        model: A model, or the path of one. Weights that are in files stay there; more than 1.5 GB
            of weights in memory, or weights in several folders, pass through a temporary folder.
        provider: The execution provider. "cuda" leaves to the CPU the ops that it has no kernel
            for.
        optimize: Whether ONNX Runtime may fuse ops and copy weights into layouts of its own.
        memory_flat: Run nodes in their order, so that values can be dropped early, and keep no
            plan of the memory for each shape: for inputs whose shapes keep changing.
        fuse_qdq: Whether ops between Q/DQ may run in integers; otherwise they compute in float, of
            the same codes.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        ModelError: ONNX Runtime refuses the model.
        OnnxqError: The provider is not available.
        OutputError: The temporary folder has no room for the weights.
    """
    runtime = _onnxruntime()
    providers = _providers(runtime, provider)
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # Threads that wait by spinning take the cores from what happens between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = not memory_flat
    if not optimize:
        # Kernels copy weights into layouts of their own when they are made, fused or not.
        options.add_session_config_entry("session.disable_prepacking", "1")
    if memory_flat:
        options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL

    disabled = _WRONG_FOR_FLOAT8 if optimize and _has_float8(model) else ()
    disabled = disabled if fuse_qdq else (*disabled, *_FUSE_QDQ)

    def load(source: str | bytes) -> ort.InferenceSession:
        try:
            return runtime.InferenceSession(
                source, options, providers=providers, disabled_optimizers=disabled
            )
        except Exception as failure:  # ONNX Runtime's exceptions share no narrower base class
            name = source if isinstance(source, str) else "the model"
            raise ModelError(f"ONNX Runtime cannot load {name}: {_one_line(failure)}") from failure

    if not isinstance(model, ir.Model):
        loaded = load(str(Path(model)))
    else:
        model = refer_to_files(model)
        folders = _folders(model)
        if len(folders) <= 1 and _bytes_in_memory(model) <= _PROTOBUF_SAFE_BYTES:
            # The weights in files are mapped into memory, not copied.
            options.add_session_config_entry(_FOLDER, next(iter(folders), ""))
            loaded = load(as_proto(model).SerializeToString())
        else:
            with _copied(model) as path:
                loaded = load(str(path))
    if loaded.get_providers()[0] != providers[0]:
        raise OnnxqError(
            f"ONNX Runtime did not start {providers[0]}; it fell back to "
            f"{', '.join(loaded.get_providers())}.",
            "Check that the CUDA and cuDNN libraries match the installed onnxruntime-gpu.",
        )
    return loaded


def run(
    session: ort.InferenceSession, outputs: Sequence[str], feed: Mapping[str, Array], label: str
) -> list[Array]:
    """The values of `outputs` for one feed.

    Args:
        session: From `session`.
        outputs: Names of graph outputs.
        feed: One array per graph input.
        label: What the feed is called in an error.

    Raises:
        DataError: ONNX Runtime fails on the feed.
    """
    try:
        arrays: list[Array] = session.run(list(outputs), dict(feed))
    except Exception as failure:  # ONNX Runtime's exceptions share no narrower base class
        shapes = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in feed.items())
        raise DataError(
            f"The model does not run on {label} ({shapes}): {_one_line(failure)}",
            "Check that the model accepts these shapes and values.",
        ) from failure
    return arrays


def fitted(session: ort.InferenceSession, feed: Mapping[str, Array]) -> dict[str, Array]:
    """`feed`, its floats in the types of a model's inputs: KV caches may have got another one."""
    found = dict(feed)
    for spec in session.get_inputs():
        dtype, array = _FED.get(spec.type), feed.get(spec.name)
        if dtype is not None and array is not None and array.dtype in _FED.values():
            found[spec.name] = array.astype(dtype, copy=False)
    return found


def installed_release() -> tuple[int, int] | None:
    """The release of ONNX Runtime at hand, a nightly one too, such as (1, 32); None without one."""
    try:
        major, minor = str(_onnxruntime().__version__).split(".")[:2]
    except MissingPackageError:
        return None
    return int(major), int(minor)


def _onnxruntime() -> Any:  # noqa: ANN401
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as failure:
        raise MissingPackageError(
            f"ONNX Runtime cannot be imported: {failure}.",
            "Install it with `pip install onnxq[cpu]` or, for NVIDIA GPUs, "
            "`pip install onnxq[gpu]`.",
        ) from failure
    return onnxruntime


def _providers(runtime: Any, provider: str) -> list[str]:  # noqa: ANN401
    available = runtime.get_available_providers()
    known = {name for name, execution in _EXECUTION_PROVIDERS.items() if execution in available}
    if provider not in known:
        raise OnnxqError(
            f"The provider '{provider}' is not available; the installed ONNX Runtime "
            f"{runtime.__version__} has: {', '.join(sorted(known))}.",
            "Install `onnxq[gpu]` in place of `onnxq[cpu]`." if provider == "cuda" else None,
        )
    first = _EXECUTION_PROVIDERS[provider]
    cpu = _EXECUTION_PROVIDERS["cpu"]
    return [first] if first == cpu else [first, cpu]


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    weights = (value.const_value for g in model.graphs() for value in g.initializers.values())
    return (weight for weight in weights if isinstance(weight, ir.ExternalTensor))


def _has_float8(model: ir.Model | str | os.PathLike[str]) -> bool:
    """Whether a constant, or what a node makes, is in 8-bit floats."""
    model = model if isinstance(model, ir.Model) else io.load(model)
    stored = (value.const_value for g in model.graphs() for value in g.initializers.values())
    weights = (tensor.dtype for tensor in stored if tensor is not None)
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    nodes = (node for body in bodies for node in body.all_nodes())
    made = (_made(each) for node in nodes for each in node.attributes.values())
    return any(dtype in _FLOAT8 for dtype in (*weights, *made))


def _made(attribute: ir.Attr) -> ir.DataType | None:
    """The type of a tensor in an attribute, or that which an attribute names."""
    if attribute.is_ref():
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor().dtype
    if attribute.name in ("to", "output_dtype") and attribute.type == ir.AttributeType.INT:
        return ir.DataType(attribute.as_int())
    return None


def _folders(model: ir.Model) -> set[str]:
    """The folders that the weights in files are named from."""
    return {os.path.abspath(weight.base_dir) for weight in _external(model)}


def _bytes_in_memory(model: ir.Model) -> int:
    return stored_bytes(model) - sum(weight.nbytes for weight in _external(model))


@contextmanager
def _copied(model: ir.Model) -> Iterator[Path]:
    """The path of a temporary copy."""
    with tempfile.TemporaryDirectory(prefix="onnxq-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "model.onnx")
        try:
            ir.save(model, path, external_data="model.onnx.data")
        except OSError as failure:
            raise OutputError(
                f"The weights cannot be written to the temporary folder {folder}: {failure}.",
                "Set TMPDIR to a folder on a larger disk.",
            ) from failure
        yield path


def _one_line(failure: Exception) -> str:
    return " ".join(str(failure).split()).rstrip(".") + "."
