"""Build an engine in a child process, attest it, and write it with its manifest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_ir.passes import common

import onnxq
from onnxq import io
from onnxq.attestation import Attestation, OpAttestation
from onnxq.engines import backend, manifest, wrong_numbers
from onnxq.engines.attest import attest, planned_products, read_layers
from onnxq.engines.shapes import Profile, profiles
from onnxq.errors import EngineError, FallbackError, TargetError
from onnxq.passes.prepare.inline import Inline
from onnxq.passes.prepare.name_everything import NameEverything
from onnxq.passes.prepare.separate_dims import SeparateDims
from onnxq.progress import progress
from onnxq.targets import Target, all_targets
from onnxq.targets import get as get_target
from onnxq.verify import check_model

if TYPE_CHECKING:
    from onnxq.io import ModelLike

_AGAIN = "Quantize the float model for this target: onnxq quantize --target."
_CONVERT = f"{_AGAIN} Or convert its codes: onnxq convert --to block-dequantize."

# What an import failure says, and what to do about it.
_HINTS = (
    ("MatMulNBits", _CONVERT),
    ("MatMulBnb4", _AGAIN),
    ("GatherBlockQuantized", _CONVERT),
    (
        "DynamicQuantizeLinear",
        "The model is quantized dynamically, which TensorRT cannot import: "
        "start from the float model.",
    ),
    (
        "ConvInteger",
        "The model is quantized dynamically, which TensorRT cannot import: "
        "start from the float model.",
    ),
    ("zero_point", "TensorRT takes symmetric int8 only: quantize the float model for this target."),
    ("zero point", "TensorRT takes symmetric int8 only: quantize the float model for this target."),
    ("is_constant()", "TensorRT needs scales and weights that are constants, not computed."),
    ("Int32", "TensorRT takes float biases: quantize the float model for this target."),
)


@dataclass(frozen=True)
class BuildResult:
    """An engine, proven.

    Attributes:
        engine: The engine's file.
        manifest: The JSON file beside it.
        attestation: What became of each op planned in low precision.
    """

    engine: Path
    manifest: Path
    attestation: Attestation


def build(
    model: ModelLike,
    output: str | os.PathLike[str],
    *,
    target: str | Target,
    shapes: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
) -> BuildResult:
    """Build an engine from `model`, and prove the precision that it runs in.

    Args:
        model: A path (of a model of any size), an `onnx_ir.Model`, an `onnx.ModelProto` or a
            `torch.onnx.ONNXProgram`.
        output: The engine. `output` + ".json" is written with it.
        target: One that builds engines, such as "rtx-sm89".
        shapes: "MIN:OPT:MAX" by input name, such as "1x3x48x32:1x3x48x320:1x3x48x1280", or one
            shape for all three; for every input with a dynamic dimension.
        allow_fallback: Accept ops that run in float though the model plans them in low precision.

    Raises:
        FallbackError: An op planned in low precision does not provably run so. No engine is left.
        EngineError: A shape is missing or wrong, or the model cannot be imported or built.
        MissingPackageError: The target's package is not installed.
        ModelError, TargetError, OutputError: Bad input of that kind.
    """
    target = _engine_target(target)
    output = Path(output)
    own = io.load(model)
    io.ensure_writable(output, own)
    io.ensure_writable(manifest.path_of(output))
    backend.load(target.backend)
    # Exporters hold zero points in Constant nodes, and Q/DQ in functions.
    lift = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    repaired = Inline()(own).modified | lift(own).modified
    wrong_numbers.refuse(own)
    repaired |= SeparateDims()(own).modified | NameEverything()(own).modified
    found = profiles(own, shapes or {})
    with io.staging(output) as folder:
        if isinstance(model, (str, os.PathLike)) and not repaired:
            source = Path(model).absolute()
        else:
            source = folder / "model.onnx"
            io.save(own, source, external_data=True)
        check_model(source)
        started = time.monotonic()
        version = _run_worker(target, source, folder, found)
        seconds = time.monotonic() - started
        by = f"{target.backend} {version}"
        attestation = attest(planned_products(own), read_layers(folder / "log"), by)
        if attestation.failed and not allow_fallback:
            raise _fallback(target, attestation)
        engine = folder / "engine"
        described = {
            "onnxq_version": onnxq.__version__,
            "backend": {"package": target.backend, "version": version},
            "target": target.name,
            "compute_capability": target.compute_capability,
            "shapes": {name: str(profile) for name, profile in found.items()},
            "model": _digest_model(model, source),
            "engine": manifest.digest([engine]) | {"path": str(output)},
            "build_seconds": round(seconds, 2),
            "attestation": attestation.to_json(),
        }
        (folder / "manifest").write_text(json.dumps(described, indent=2), encoding="utf-8")
        os.replace(folder / "manifest", manifest.path_of(output))
        os.replace(engine, output)
    return BuildResult(output, manifest.path_of(output), attestation)


def _digest_model(given: ModelLike, built: Path) -> dict[str, Any]:
    """The digest of the file given, else of the model built from, which has no path to tell."""
    if isinstance(given, (str, os.PathLike)):
        return manifest.digest([Path(given), *io.data_files(io.load(given))])
    return manifest.digest([built, *io.data_files(io.load(built))]) | {"path": None}


def _engine_target(target: str | Target) -> Target:
    target = get_target(target) if isinstance(target, str) else target
    if not target.builds_engines:
        names = ", ".join(each.name for each in all_targets() if each.builds_engines)
        raise TargetError(
            f"Target '{target.name}' runs the ONNX file itself; there is no engine to build.",
            f"Targets with engines: {names}.",
        )
    return target


def _run_worker(target: Target, model: Path, folder: Path, shapes: Mapping[str, Profile]) -> str:
    """Build `folder`/engine and `folder`/log in a child process; return the package's version."""
    job = {
        "backend": target.backend,
        "model": str(model),
        "engine": str(folder / "engine"),
        "log": str(folder / "log"),
        "compute_capability": target.compute_capability,
        "profiles": {name: profile.all() for name, profile in shapes.items()},
    }
    command = [sys.executable, "-m", "onnxq.engines.worker"]
    # In a file, not through a pipe: a worker that dies before it reads breaks no pipe.
    (folder / "job").write_text(json.dumps(job), encoding="utf-8")
    with (
        (folder / "job").open(encoding="utf-8") as stdin,
        (folder / "stderr").open("w+", encoding="utf-8") as stderr,
        subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as worker,
    ):
        assert worker.stdout is not None
        try:
            last = _follow(worker.stdout)
        except BaseException:
            worker.kill()
            raise
        status = worker.wait()
        stderr.seek(0)
        said = " ".join(stderr.read().split())
    if "done" in last:
        return str(last["done"]["version"])
    if "error" in last:
        raise EngineError(last["error"], _hint(last["error"]))
    how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    raise EngineError(f"{target.backend} ended with {how} while it was building. {said[-500:]}")


def _follow(lines: Iterable[str]) -> dict[str, Any]:
    """Show the progress of the worker, and return its last message."""
    message: dict[str, Any] = {}
    with ExitStack() as shown:
        for line in lines:
            message = json.loads(line)
            if "steps" in message:
                bar = progress("Building the engine", message["steps"])
                advance = shown.enter_context(bar)
            elif "step" in message:
                advance()
    return message


def _fallback(target: Target, attestation: Attestation) -> FallbackError:
    width = max(len(op.node) for op in attestation.failed)
    rows = "\n".join(_row(op, width) for op in attestation.failed)
    excluded = " ".join(f"--exclude '{op.node}'" for op in attestation.failed[:3])
    return FallbackError(
        f"{len(attestation.failed)} of {len(attestation.ops)} ops planned in low precision do not "
        f"provably run so on {target.name}:\n{rows}\n",
        f"Leave them in float when you quantize ({excluded} ...), or accept them with "
        "--allow-fallback.",
    )


def _row(op: OpAttestation, width: int) -> str:
    return f"  {op.node:<{width}}  {op.op_type}  {op.planned} -> {op.actual}  {op.evidence}"


def _hint(error: str) -> str | None:
    return next((hint for word, hint in _HINTS if word in error), None)
