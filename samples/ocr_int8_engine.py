"""A text recognizer in int8: from a published ONNX file to an engine that is proven to run in int8.

    python samples/ocr_int8_engine.py [--lines 400] [--output FOLDER]

The model is PP-OCRv4 recognition as it is published (opset 12, weights in Constant nodes). It is
calibrated on rendered lines of text, judged on other lines with known truth, and compiled for
compute capability 8.9. Neither torch nor a GPU is needed.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
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
    arguments.add_argument("--output", type=Path, help="where models and engines go")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _run(folder, given.lines, given.calibration_lines)


def _run(folder: Path, lines: int, calibration_lines: int) -> None:
    model = models.path("ppocr-rec")
    print(f"float     {_size(model)}, line accuracy {accuracy(model, lines):.4f}")

    def feeds() -> Iterator[Feed]:
        return itertools.islice(data.recognition(), calibration_lines)

    stats = onnxq.calibrate(model, feeds)
    for target in ("ort-cpu", "rtx-sm89"):
        quantized = folder / f"recognition.{target}.onnx"
        result = onnxq.quantize(model, preset="int8", target=target, stats=stats, calibration=feeds)
        result.save(quantized)
        counts = ", ".join(f"{n} ops {kind}" for kind, n in sorted(result.report.counts().items()))
        found = accuracy(quantized, lines)
        print(f"{target:9} {_size(quantized)}, line accuracy {found:.4f}; {counts}")

    shapes = {"x": SHAPE}
    plain = onnxq.build(model, folder / "float.engine", target="rtx-sm89", shapes=shapes)
    built = onnxq.build(
        folder / "recognition.rtx-sm89.onnx",
        folder / "int8.engine",
        target="rtx-sm89",
        shapes=shapes,
    )
    counts = ", ".join(f"{n} {what}" for what, n in built.attestation.summary().items())
    print(f"engine    float {_size(plain.engine)}, int8 {_size(built.engine)}; int8 ops: {counts}")


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
