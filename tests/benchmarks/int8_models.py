"""int8 in its defaults on the real models: accuracy, size, and latency on ONNX Runtime's CPU.

    python tests/benchmarks/int8_models.py [MODEL ...]

Accuracy is judged on data that no calibration saw; latencies are medians of inferences in turns
with the float model, with all threads (`onnxq quantize --measure`).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "samples"), str(ROOT / "tests"), str(Path(__file__).parent)]

import models  # noqa: E402
from cases import CASES, ONNXQ  # noqa: E402

import onnxq  # noqa: E402


def main() -> None:
    """Print a line for each model and target."""
    for name in sys.argv[1:] or CASES:
        case, path = CASES[name], models.path(name)
        size = path.stat().st_size
        print(f"{name}: float {case.judge(path):.4f}, {size / 1e6:.2f} MB", flush=True)
        for target in ONNXQ.values():
            result = onnxq.quantize(
                path,
                preset="int8",
                target=target,
                calibration=case.feeds,
                measure=target == "ort-cpu",
            )
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "int8.onnx"
                result.save(file)
                found, share = case.judge(file), file.stat().st_size / size
            latency = result.report.latency_ms
            speed = "" if latency is None else f", {latency['speedup']} times float's speed"
            ops = result.report.counts().get("int8", 0)
            size_and_ops = f"{share:.2f} of its size, {ops} ops in int8"
            print(f"  {target}: {found:.4f}, {size_and_ops}{speed}", flush=True)
        print(f"  load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
