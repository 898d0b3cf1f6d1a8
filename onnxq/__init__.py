"""onnxq: quantize ONNX models for the hardware they run on, and prove what the engine runs.

`onnxq.quantize(...)` returns a result with `.model`, `.report` and `.save(path)`;
`onnxq.build(...)` compiles an engine from it and attests what the engine does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxq.comparison import compare
    from onnxq.conversion import convert
    from onnxq.engines import build
    from onnxq.errors import OnnxqError
    from onnxq.io import load, save
    from onnxq.pipeline import plan, quantize
    from onnxq.recipe import Recipe
    from onnxq.statistics import calibrate

__version__ = "0.1.0"
__all__ = [
    "OnnxqError",
    "Recipe",
    "build",
    "calibrate",
    "compare",
    "convert",
    "load",
    "plan",
    "quantize",
    "save",
]

_HOMES = {
    "OnnxqError": "onnxq.errors",
    "Recipe": "onnxq.recipe",
    "build": "onnxq.engines",
    "calibrate": "onnxq.statistics",
    "compare": "onnxq.comparison",
    "convert": "onnxq.conversion",
    "load": "onnxq.io",
    "plan": "onnxq.pipeline",
    "quantize": "onnxq.pipeline",
    "save": "onnxq.io",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import what is asked for, when it is asked for: `import onnxq` alone is cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxq' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
