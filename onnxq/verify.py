"""Whether a written model is valid and loads: asked before it gets its final name."""

from __future__ import annotations

from pathlib import Path

from onnxq import runtime
from onnxq.errors import ModelError


def check_model(path: Path) -> None:
    """Check the model at `path` with `onnx.checker`.

    Raises:
        ModelError: It is not valid.
    """
    import onnx  # noqa: PLC0415

    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as failure:
        why = " ".join(str(failure).split())
        raise ModelError(f"'{path.name}' is not valid ONNX: {why}.") from failure


def verify(path: Path) -> None:
    """Check the model at `path` with `onnx.checker`, and load it in ONNX Runtime.

    Every form that onnxq writes is known to ONNX Runtime on the CPU, whatever the target is.

    Raises:
        ModelError: It is not valid, or does not load: a defect of onnxq, or of the input.
    """
    check_model(path)
    runtime.session(path, optimize=False)
