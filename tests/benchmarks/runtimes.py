"""What onnxq writes, in the runtimes that people have.

    python tests/benchmarks/runtimes.py [FOLDER]

Recognition in int8 and int4 and MiniLM in int4, each as written by default and for ONNX Runtime
1.18, run in releases of onnxruntime, in onnxruntime-node and -web, and in OpenVINO, all of which
are installed into FOLDER (some 2 GB; kept). A cell is the SQNR in dB to the same file's outputs in
the installed ONNX Runtime, or how the file was refused by a release older than it says it needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "samples"), str(ROOT / "tests"), str(Path(__file__).parent)]

import models  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from cases import CASES  # noqa: E402

import onnxq  # noqa: E402
from onnxq.inspection import inspect  # noqa: E402
from onnxq.minimum_runtime import parse_release  # noqa: E402
from onnxq.types import Array  # noqa: E402

RELEASES = {"1.18.1": "numpy<2", "1.20.1": "numpy", "1.23.2": "numpy"}
NODE = {"onnxruntime-node": "1.30.0", "onnxruntime-web": "1.30.0"}
OPENVINO = "openvino==2026.4.1"
_LEAST = 30  # dB: integer kernels round in other places, in wasm for example
_LEAST_OPENVINO = 10  # dB: it has kernels of its own for int8

_RUN = """
import sys, numpy as np, onnxruntime as ort
model, folder = sys.argv[1:]
with np.load(f"{folder}/feed.npz") as feed:
    given = {name: feed[name] for name in feed}
options = ort.SessionOptions()
options.log_severity_level = 4
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
for index, array in enumerate(session.run(None, given)):
    array.tofile(f"{folder}/output{index}.bin")
"""
_RUN_OPENVINO = """
import sys, numpy as np, openvino as ov
model, folder = sys.argv[1:]
with np.load(f"{folder}/feed.npz") as feed:
    given = {name: feed[name] for name in feed}
core = ov.Core()
found = core.compile_model(core.read_model(model), "CPU")(given)
for index, array in enumerate(found.values()):
    np.ascontiguousarray(array).tofile(f"{folder}/output{index}.bin")
"""


@dataclass(frozen=True)
class File:
    """A quantized model, and what to run it on."""

    label: str
    path: Path
    feed: Mapping[str, Array]
    needs: str


def main() -> None:
    """Install, write, run, and print the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="runtimes-"))
    folder.mkdir(parents=True, exist_ok=True)
    runners = dict(_runners(folder))
    failures = 0
    print("| file | needs | " + " | ".join(runners) + " |")
    print("|" + "---|" * (len(runners) + 2))
    for file in _files(folder):
        expected = _installed(file)
        cells = []
        for name, run in runners.items():
            cell, good = _cell(file, name, run, expected)
            failures += not good
            cells.append(cell)
        print(f"| {file.label} | {file.needs} | " + " | ".join(cells) + " |", flush=True)
    if failures:
        sys.exit(f"{failures} cells are not as they should be")


def _files(folder: Path) -> list[File]:
    made = []
    for name, preset, options in (
        ("ppocr-rec", "int8", {}),
        ("ppocr-rec", "int4", {"conv_as_matmul": True}),
        ("minilm", "int4", {}),
    ):
        for release in (None, "1.18"):
            case = CASES[name]
            feed = next(iter(case.feeds()))
            data = {"calibration": list(islice(case.feeds(), 32))} if preset == "int8" else {}
            label = f"{name} {preset}" + ("" if release is None else f" for {release}")
            path = folder / f"{label.replace(' ', '-')}.onnx"
            onnxq.quantize(
                models.path(name),
                preset=preset,
                target="ort-cpu",
                min_runtime=release,
                **options,
                **data,
            ).save(path)
            made.append(File(label, path, feed, inspect(path)["needs"]["onnxruntime"]))
    return made


def _installed(file: File) -> list[Array]:
    session = onnxruntime.InferenceSession(file.path, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, dict(file.feed))]


def _cell(
    file: File, name: str, run: Callable[[Path, Path], str], expected: list[Array]
) -> tuple[str, bool]:
    release = name.removeprefix("onnxruntime ")
    too_old = release[0].isdigit() and parse_release(release) < parse_release(file.needs)
    with tempfile.TemporaryDirectory() as folder:
        _write_feed(Path(folder), file.feed)
        refused = run(file.path, Path(folder))
        if refused:
            return ("older than needed" if too_old else f"**{refused[-60:]}**"), too_old
        found = [
            np.fromfile(Path(folder, f"output{index}.bin"), array.dtype).reshape(array.shape)
            for index, array in enumerate(expected)
        ]
    worst = min(_sqnr(*pair) for pair in zip(expected, found, strict=True))
    return f"{worst:.1f} dB", worst > (_LEAST_OPENVINO if name == "openvino" else _LEAST)


def _sqnr(expected: Array, found: Array) -> float:
    noise = float(((expected.astype(np.float64) - found) ** 2).sum())
    return 200.0 if noise == 0 else 10 * np.log10(float((expected**2).sum()) / noise)


def _write_feed(folder: Path, feed: Mapping[str, Array]) -> None:
    np.savez(folder / "feed.npz", **feed)
    entries = []
    for index, (name, array) in enumerate(feed.items()):
        array.tofile(folder / f"input{index}.bin")
        entry = {"file": f"input{index}.bin", "input": name, "type": array.dtype.name}
        entries.append({**entry, "dims": list(array.shape)})
    (folder / "feed.json").write_text(json.dumps(entries))


def _runners(folder: Path) -> dict[str, Callable[[Path, Path], str]]:
    found: dict[str, Callable[[Path, Path], str]] = {}
    for release, numpy in RELEASES.items():
        python = _environment(folder / release, f"onnxruntime=={release}", numpy)
        found[f"onnxruntime {release}"] = _python(python, _RUN)
    for package, version in NODE.items():
        found[package] = _node(folder / "node", package, version)
    found["openvino"] = _python(_environment(folder / "openvino", OPENVINO), _RUN_OPENVINO)
    return found


def _environment(folder: Path, *requirements: str) -> Path:
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        (folder / "complete").touch()
    return python


def _python(python: Path, code: str) -> Callable[[Path, Path], str]:
    return lambda model, folder: _last_line([str(python), "-c", code, str(model), str(folder)])


def _node(folder: Path, package: str, version: str) -> Callable[[Path, Path], str]:
    folder.mkdir(exist_ok=True)
    if not (folder / "node_modules" / package).exists():
        # Its script would fetch libraries for GPUs.
        install = ["npm", "install", "--ignore-scripts", "--silent", f"{package}@{version}"]
        subprocess.run(install, cwd=folder, check=True)
    script = Path(__file__).with_suffix(".js")
    environment = {"NODE_PATH": str(folder / "node_modules")}
    return lambda model, data: _last_line(
        ["node", str(script), package, str(model), str(data)], environment
    )


def _last_line(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Empty if the command succeeds, else the last line of what it says."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | dict(environment or {})
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or [f"exit {result.returncode}"])[-1]


if __name__ == "__main__":
    main()
