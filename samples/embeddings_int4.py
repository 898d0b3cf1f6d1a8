"""Sentence embeddings with 4-bit weights: MiniLM for ONNX Runtime, and as an engine.

    python samples/embeddings_int4.py [--sentences 200] [--output FOLDER]

No calibration data is needed. Printed is the mean cosine between the embeddings of the float model
and those of the quantized one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import data
import models
import numpy as np
from numpy.typing import NDArray
from text_lines import EVALUATION

import onnxq
from onnxq import runtime

SHAPES = {name: "1x8:1x64:8x256" for name in ("input_ids", "attention_mask", "token_type_ids")}


def main() -> None:
    """Run the story and print what it measured."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sentences", type=int, default=200, help="sentences to judge on")
    arguments.add_argument("--output", type=Path, help="where models and engines go")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _run(folder, given.sentences)


def _run(folder: Path, count: int) -> None:
    model = models.path("minilm")
    sentences = data.sentences(count, EVALUATION)
    reference = embeddings(model, sentences)
    print(f"float     {_size(model)}")
    for target in ("ort-cpu", "rtx-sm89"):
        quantized = folder / f"minilm.{target}.onnx"
        onnxq.quantize(model, preset="int4", target=target).save(quantized)
        cosine = np.mean(np.sum(reference * embeddings(quantized, sentences), axis=1))
        print(f"{target:9} {_size(quantized)}, mean cosine to float {cosine:.4f}")
    built = onnxq.build(
        folder / "minilm.rtx-sm89.onnx",
        folder / "minilm.engine",
        target="rtx-sm89",
        shapes=SHAPES,
    )
    counts = ", ".join(f"{n} {what}" for what, n in built.attestation.summary().items())
    print(f"engine    {_size(built.engine)}; int4 ops: {counts}")


def embeddings(model: Path, sentences: Iterable[str]) -> NDArray[np.float32]:
    """Unit vectors [sentences, 384]: the mean over the tokens, as the model was trained for."""
    session = runtime.session(model)
    rows = [session.run(None, data.sentence_feed(s))[0][0].mean(axis=0) for s in sentences]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.2f} MB"


if __name__ == "__main__":
    main()
