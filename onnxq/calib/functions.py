"""Finding the function that `path/file.py:function` or `package.module:function` names."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxq.errors import DataError


def find_function(reference: str) -> Callable[[], Any]:
    """Import what is left of the last colon and return its attribute of the name at the right.

    Raises:
        DataError: The module cannot be imported, or has no such function.
    """
    module_name, _, name = reference.rpartition(":")
    try:
        module = _from_file(Path(module_name)) if module_name.endswith(".py") else None
        module = module or importlib.import_module(module_name)
    except Exception as failure:  # the user's module may raise anything
        raise DataError(
            f"'{module_name}' cannot be imported: {type(failure).__name__}: {failure}.",
            "Give path/file.py:function, or package.module:function of an installed package.",
        ) from failure
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    near = difflib.get_close_matches(name, known, n=1)
    raise DataError(
        f"'{module_name}' has no function '{name}'.",
        f"Did you mean '{near[0]}'?" if near else f"It has: {', '.join(known) or 'none'}.",
    )


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"onnxq_data_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
