"""Weight-only quantization of SmolLM2-135M: what it costs in accuracy, bytes and CPU time.

    python tests/benchmarks/llm_weights.py [--tokens 8192] [SETTING ...]

Each setting is quantized in a process of its own, calibration included where there is any; CPU
time is that of all its threads. Judged is on public-domain text that no calibration saw.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "samples"), str(ROOT / "tests"), str(Path(__file__).parent)]

import data  # noqa: E402
import models  # noqa: E402
from language import distances  # noqa: E402
from measure import measure  # noqa: E402

_DATA = ["--calibration", f"{ROOT}/samples/data.py:smollm2"]
_FLOAT_HEAD = ["--exclude", "node_linear_210"]
SETTINGS = {
    "symmetric, float head": ({"symmetric": True}, _FLOAT_HEAD),
    "symmetric, float head, data": ({"symmetric": True}, [*_FLOAT_HEAD, *_DATA]),
    "symmetric, float head, data, not rotated": (
        {"symmetric": True},
        [*_FLOAT_HEAD, *_DATA, "--no-rotate"],
    ),
    "symmetric, float head, data, scale-estimation": (
        {"symmetric": True, "algorithm": "scale-estimation"},
        [*_FLOAT_HEAD, *_DATA],
    ),
    **{
        f"symmetric, float head, data, gptq+{grid}": (
            {"symmetric": True, "algorithm": f"gptq+{grid}"},
            [*_FLOAT_HEAD, *_DATA],
        )
        for grid in ("rtn", "hqq", "kquant")
    },
    "symmetric, blocks of 64, float head": ({"symmetric": True, "block_size": 64}, _FLOAT_HEAD),
    "nf4, float head": ({"bits": "nf4"}, _FLOAT_HEAD),
    "nf4, blocks of 64, float head": ({"bits": "nf4", "block_size": 64}, _FLOAT_HEAD),
    "nf4, rtn, float head": ({"bits": "nf4", "algorithm": "rtn"}, _FLOAT_HEAD),
    "zero points, float head": ({}, _FLOAT_HEAD),
    "zero points, float head, data": ({}, [*_FLOAT_HEAD, *_DATA]),
    "zero points, float head, data, not rotated": ({}, [*_FLOAT_HEAD, *_DATA, "--no-rotate"]),
    **{
        f"zero points, float head, data, gptq+{grid}": (
            {"algorithm": f"gptq+{grid}"},
            [*_FLOAT_HEAD, *_DATA],
        )
        for grid in ("rtn", "hqq", "kquant")
    },
    "zero points, float head, data, scale-estimation": (
        {"algorithm": "scale-estimation"},
        [*_FLOAT_HEAD, *_DATA],
    ),
    "all of it": ({}, []),
    "all of it, data": ({}, _DATA),
    "90 MB": ({}, ["--size-budget", "90MB"]),
    "90 MB, data": ({}, ["--size-budget", "90MB", *_DATA]),
    "115 MB": ({}, ["--size-budget", "115MB"]),
    "115 MB, data": ({}, ["--size-budget", "115MB", *_DATA]),
}


def main() -> None:
    """Quantize in each setting, judge all of them, and print a line for each."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("settings", nargs="*", help="parts of the names of settings; all")
    arguments.add_argument("--tokens", type=int, default=8192, help="tokens to judge on")
    given = arguments.parse_args()
    wanted = [s for s in SETTINGS if not given.settings or any(p in s for p in given.settings)]
    model = models.path("smollm2")
    windows = data.token_windows(given.tokens // 256, 256)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{index}.onnx" for index in range(len(wanted))]
        took = [_quantize(model, file, *SETTINGS[s]) for s, file in zip(wanted, files, strict=True)]
        found = distances(model, files, windows)
        sizes = [file.stat().st_size / 1e6 for file in files]
    for setting, size, cpu, distance in zip(wanted, sizes, took, found, strict=True):
        print(f"{setting:48} {size:7.2f} MB, {cpu:6.1f} CPU-s: {distance}")


def _quantize(model: Path, output: Path, weights: dict[str, object], options: list[str]) -> float:
    """The CPU time of the quantization in seconds."""
    recipe = output.with_suffix(".json")
    recipe.write_text(json.dumps({"preset": "int4", "weights": weights}))
    command = [sys.executable, "-m", "onnxq", "quantize", model, "-o", output]
    command += ["--recipe", recipe, "--target", "ort-cpu", *options]
    result = measure([str(part) for part in command], seconds=1800, megabytes=16_000)
    if result["status"] != "ok":
        raise RuntimeError(f"{output}: {result}")
    return float(result["cpu_s"])


if __name__ == "__main__":
    main()
