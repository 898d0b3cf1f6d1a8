"""Kernels compile where no cache can be written too."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnxq

PROGRAM = """
import numpy as np
from onnxq.kernels import packing
packed = np.empty((1, 2), np.uint8)
packing.pack(np.array([[1, 2, 3, 4]], np.uint8), True, 4, np.uint8(0), np.uint8(0), packed, 0, 1)
print(packed.tolist())
"""


def test_without_a_folder_for_compiled_code(tmp_path):
    """Neither the package nor the home is a folder that numba can write to."""
    shutil.copytree(
        Path(onnxq.__file__).parent,
        tmp_path / "onnxq",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for file in ("kernels/__pycache__", "passes/__pycache__"):
        (tmp_path / "onnxq" / file).touch()  # where a folder would have to be
    (tmp_path / "home").touch()
    home = str(tmp_path / "home/none")
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {
        "PYTHONPATH": str(tmp_path),
        "HOME": home,
        "XDG_CACHE_HOME": home,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert run.stdout == "[[33, 67]]\n", run.stderr
    assert run.stderr.count("note: no folder for compiled code can be written") == 1
