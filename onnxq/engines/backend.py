"""TensorRT and TensorRT-RTX as one: two packages with nearly one interface.

Flags are asked for by name, because their numbers differ between versions.
"""

from __future__ import annotations

import importlib
from typing import Any

from onnxq.errors import EngineError, MissingPackageError
from onnxq.targets.base import Backend

_SERVED = {
    "tensorrt_rtx": "Run: pip install 'onnxq[rtx]'",
    "tensorrt": (
        "Run: pip install 'onnxq[tensorrt]'. PyPI has only a loader for it: NVIDIA serves the "
        "libraries from its own index (--extra-index-url https://pypi.nvidia.com) and with the "
        "TensorRT download. Targets named rtx-* build with TensorRT-RTX instead."
    ),
}


def load(backend: Backend) -> Any:  # noqa: ANN401
    """Import the package of `backend`.

    Raises:
        MissingPackageError: It is not installed, or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module(backend)
    except (ImportError, OSError, RuntimeError) as failure:
        raise MissingPackageError(
            f"The package '{backend}' cannot be imported: {' '.join(str(failure).split())}.",
            _SERVED[backend],
        ) from failure


def select_hardware(trt: Any, config: Any, compute_capability: int) -> None:  # noqa: ANN401
    """Make `config` compile for `compute_capability`.

    TensorRT-RTX compiles for any that it supports; TensorRT only for the GPU that is present.

    Raises:
        EngineError: It cannot.
    """
    if hasattr(trt, "ComputeCapability"):
        wanted = getattr(trt.ComputeCapability, f"SM{compute_capability}", None)
        if wanted is None:
            raise EngineError(
                f"TensorRT-RTX {trt.__version__} does not compile for SM {compute_capability}."
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(wanted, 0)
        return
    present = _present_compute_capability()
    if present != compute_capability:
        found = "no GPU" if present is None else f"a GPU of SM {present}"
        raise EngineError(
            f"TensorRT builds for the GPU it runs on, and this machine has {found}; "
            f"SM {compute_capability} was asked for.",
            "Build on a machine with that GPU.",
        )


def flag(enumeration: Any, name: str) -> int:  # noqa: ANN401
    """The bit of a flag that is asked for by name; 0 where this version has none."""
    value = getattr(enumeration, name, None)
    return 0 if value is None else 1 << int(value)


def _present_compute_capability() -> int | None:
    import ctypes  # noqa: PLC0415

    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    major, minor = ctypes.c_int(), ctypes.c_int()
    device_attribute_major, device_attribute_minor = 75, 76  # CUdevice_attribute
    if cuda.cuInit(0) or cuda.cuDeviceGetAttribute(ctypes.byref(major), device_attribute_major, 0):
        return None
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), device_attribute_minor, 0)
    return major.value * 10 + minor.value
