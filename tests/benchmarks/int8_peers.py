"""int8 by onnxq beside onnxruntime.quantization, nvidia-modelopt and nncf, on the same data.

    sh tests/benchmarks/install_peers.sh ~/peers
    python tests/benchmarks/int8_peers.py --peers-venv ~/peers [--models ...] [--tools ...]

Every tool is a process of its own that reads the same calibration feeds from .npz files, and
everything it does counts: start, imports, calibration, writing. onnxq runs its command line in its
defaults; its compiled kernels are in numba's cache, where an earlier run leaves them. The peers run
in their documented defaults, and once more as known to work best ("by hand"). A tool that takes
more than --seconds or --megabytes is ended, and that is its result, as is a crash.

Accuracy is that of ONNX Runtime on the CPU on the whole file, also for files for TensorRT, judged
by tests/judges.py on data that no calibration saw. Latency: see latency.py.

With --results results are kept, and what is there is not measured again, but for latency.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "samples"))
sys.path.append(str(Path(__file__).resolve().parents[1]))

import latency
import models
import numpy as np
import table
from cases import CASES, ONNXQ, TOOLS, command


def main():
    given = _arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.results or Path(temporary)).absolute()
        _warm_up(folder, given)
        found = {name: _compare(name, folder / name, given) for name in given.models}
    noise = {name: CASES[name].noise for name in found}
    for name, results in found.items():
        print(table.model_table(name, results), end="\n\n")
    print(table.summary(found, noise))


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-venv", type=lambda p: Path(p).absolute(), required=True)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES), metavar="MODEL")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, metavar="TOOL")
    parser.add_argument("--samples", type=int, default=64, help="to calibrate on, at most")
    parser.add_argument("--seconds", type=float, default=300, help="that a tool may take")
    parser.add_argument("--megabytes", type=int, default=8000, help="that a tool may take")
    parser.add_argument("--rounds", type=int, default=30, help="of inferences, for latency")
    parser.add_argument("--results", type=Path, help="a folder to keep results and models in")
    return parser.parse_args()


def _warm_up(folder, given):
    """One run of onnxq that does not count, so that its kernels are compiled."""
    if set(given.tools) & set(ONNXQ):
        name = "magika"
        feeds = _feeds(name, folder / name, given.samples)
        made = folder / name / "warm.onnx"
        subprocess.run(
            command(next(iter(ONNXQ)), given.peers_venv, models.path(name), feeds, made),
            check=True,
            capture_output=True,
        )


def _compare(name, folder, given):
    """The results of every tool on one model, by the name of the tool."""
    feeds = _feeds(name, folder, given.samples)
    judge = CASES[name].judge
    results = {"float": _kept(folder / "float.json", lambda: _float(name, judge))}
    files = {"float": models.path(name)}
    for tool in given.tools:
        stem = tool.replace(" ", "-")
        made = folder / f"{stem}.onnx"
        results[tool] = _kept(
            folder / f"{stem}.json", lambda m=made, t=tool: _measure(t, name, feeds, m, given)
        )
        if results[tool]["status"] == "ok" and not isinstance(results[tool]["accuracy"], str):
            files[tool] = made
        print(f"{name} {tool}: {results[tool]['status']}", file=sys.stderr)
    times = latency.medians(files, _middle(feeds), given.rounds)
    for tool, milliseconds in times.items():
        results[tool]["latency_ms"] = milliseconds
    return results


def _feeds(name, folder, count):
    """A folder of .npz files: at most `count` feeds from all over the data."""
    feeds = folder / f"feeds-{count}"
    if not feeds.is_dir():
        all_feeds = list(CASES[name].feeds())
        feeds.mkdir(parents=True)
        for index, feed in enumerate(all_feeds[:: max(1, len(all_feeds) // count)][:count]):
            np.savez(feeds / f"{index:04}.npz", **feed)
    return feeds


def _middle(feeds):
    """The feed of middle size."""
    paths = sorted(feeds.glob("*.npz"), key=lambda path: path.stat().st_size)
    with np.load(paths[len(paths) // 2]) as arrays:
        return dict(arrays)


def _kept(path, make):
    if not path.is_file():
        path.write_text(json.dumps(make(), indent=2))
    return json.loads(path.read_text())


def _float(name, judge):
    file = models.path(name)
    return {"status": "ok", "accuracy": judge(file), "file_mb": file.stat().st_size / 1e6}


def _measure(tool, name, feeds, made, given):
    what = command(tool, given.peers_venv, models.path(name), feeds, made)
    measured = made.with_suffix(".measured")
    limits = [str(given.seconds), str(given.megabytes)]
    measure = Path(__file__).resolve().with_name("measure.py")
    with tempfile.TemporaryDirectory() as aside:  # some leave files in the working folder
        subprocess.run([sys.executable, measure, measured, *limits, *what], check=True, cwd=aside)
    result = json.loads(measured.read_text())
    if result["status"] == "ok":
        result["file_mb"] = made.stat().st_size / 1e6
        result["accuracy"] = _judged(CASES[name].judge, made)
    return result


def _judged(judge, made):
    """The accuracy, or why there is none."""
    try:
        return judge(made)
    except Exception as failure:  # whatever ONNX Runtime says of a file that it cannot run
        return f"does not run: {' '.join(str(failure).split())[:80]}"


if __name__ == "__main__":
    main()
