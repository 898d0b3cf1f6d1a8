"""ENGINE.json: what an engine is, what it was built from, and what it was proven to run."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from onnxq.errors import EngineError


def path_of(engine: Path) -> Path:
    """Where the manifest of `engine` is."""
    return engine.with_name(f"{engine.name}.json")


def digest(files: list[Path]) -> dict[str, Any]:
    """The SHA-256 and size of one or more files, read one after the other."""
    sha256, size = hashlib.sha256(), 0
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
                size += len(chunk)
    return {"path": str(files[0]), "sha256": sha256.hexdigest(), "bytes": size}


def describe(engine: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of `engine`.

    Raises:
        EngineError: There is no engine or no manifest, or the engine is not the one that the
            manifest is about.
    """
    engine = Path(engine)
    if not engine.is_file():
        raise EngineError(f"There is no file '{engine}'.", "Check the path.")
    try:
        manifest: dict[str, Any] = json.loads(path_of(engine).read_text(encoding="utf-8"))
        expected = manifest["engine"]["sha256"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as failure:
        raise EngineError(
            f"'{engine}' has no readable manifest '{path_of(engine)}': {failure}.",
            "Build it with `onnxq build`.",
        ) from failure
    if digest([engine])["sha256"] != expected:
        raise EngineError(
            f"'{engine}' is not the engine that '{path_of(engine)}' is about: its SHA-256 differs.",
            "Build it again.",
        )
    return manifest
