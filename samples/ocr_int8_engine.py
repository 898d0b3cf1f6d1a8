"""A text recognizer in int8: from a published ONNX file to an engine that is proven to run in int8.

    python samples/ocr_int8_engine.py [--lines 400] [--output FOLDER]

It says what it does on standard error, and what it measured on standard output. The model is
PP-OCRv4 recognition as it is published (opset 12, weights in Constant nodes). It is calibrated on
rendered lines of text, judged on other lines with known truth, and compiled for compute capability
8.9. Neither torch nor a GPU is needed.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import data
import models
import onnx_ir as ir
from text_lines import EVALUATION, Feed, line_accuracy, read_charset, text_lines

import onnxq
from onnxq import runtime

SHAPE = "1x3x48x32:1x3x48x320:1x3x48x1280"


def main() -> None:
    """Run the story and print what it measured."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--lines", type=int, default=400, help="lines to judge accuracy on")
    arguments.add_argument("--calibration-lines", type=int, default=256)
    arguments.add_argument(
        "--output", type=Path, default=Path("build/ocr-int8"), help="where models and engines go"
    )
    given = arguments.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    _run(given.output, given.lines, given.calibration_lines)


def _run(folder: Path, lines: int, calibration_lines: int) -> None:
    steps = Steps(7)
    steps.next("fetching the float model, and reading text with it")
    model = models.path("ppocr-rec")
    print(f"float     {_size(model)}, line accuracy {accuracy(model, lines):.4f}", flush=True)

    def feeds() -> Iterator[Feed]:
        return itertools.islice(data.recognition(), calibration_lines)

    steps.next(f"calibrating on {calibration_lines} rendered lines of text")
    stats = onnxq.calibrate(model, feeds)
    for target in ("ort-cpu", "rtx-sm89"):
        steps.next(f"quantizing to int8 for {target}, and reading text with that")
        quantized = folder / f"recognition.{target}.onnx"
        result = onnxq.quantize(model, preset="int8", target=target, stats=stats, calibration=feeds)
        result.save(quantized)
        counts = ", ".join(f"{n} ops {kind}" for kind, n in sorted(result.report.counts().items()))
        found = accuracy(quantized, lines)
        print(f"{target:9} {_size(quantized)}, line accuracy {found:.4f}; {counts}", flush=True)

    shapes = {"x": SHAPE}
    steps.next("building the engine of the float model")
    plain = onnxq.build(model, folder / "float.engine", target="rtx-sm89", shapes=shapes)
    steps.next("building the engine of the int8 model, and proving what it runs")
    engine = folder / "int8.engine"
    built = onnxq.build(quantized, engine, target="rtx-sm89", shapes=shapes)
    counts = ", ".join(f"{n} {what}" for what, n in built.attestation.summary().items())
    print(f"engine    float {_size(plain.engine)}, int8 {_size(engine)}; int8 ops: {counts}")
    steps.next(f"done: the models and engines are in {folder}. What to try next:")
    feeds_of = f"{_short(Path(data.__file__))}:recognition"
    quantized = folder / "recognition.ort-cpu.onnx"
    print(_command("inspect", engine))
    print(_command("compare", _short(model), quantized, "--data", feeds_of))


def _command(*arguments: str | Path) -> str:
    """A command line of onnxq, to be pasted into a shell in this folder."""
    return shlex.join([str(_short(Path(sys.executable))), "-m", "onnxq", *map(str, arguments)])


def _short(path: Path) -> Path:
    """The path from the working folder, if it is in there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class Steps:
    """Tells on standard error which step of how many begins, and after how many seconds."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._begun = 0
        self._start = time.monotonic()

    def next(self, what: str) -> None:
        """Tell that the next step begins."""
        self._begun += 1
        seconds = time.monotonic() - self._start
        print(
            f"[{self._begun}/{self._count}, {seconds:3.0f} s] {what}", file=sys.stderr, flush=True
        )


def accuracy(model: Path, lines: int) -> float:
    """The share of rendered lines that a recognition model reads without any mistake."""
    session = runtime.session(model)
    charset = read_charset(models.path("ppocr-rec"))
    output = ir.load(str(model)).graph.outputs[0].name or ""
    return line_accuracy(
        lambda feed: session.run([output], feed)[0], charset, text_lines(lines, EVALUATION)
    )


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.2f} MB"


if __name__ == "__main__":
    main()
