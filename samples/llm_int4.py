"""A language model with 4-bit weights: SmolLM2-135M, and what it costs in perplexity.

    python samples/llm_int4.py [--tokens 4096] [--output FOLDER]

Needs the extra `samples-torch`, to export the model. Weights are quantized without data and with
some, which takes a minute or two. Perplexity is measured on public-domain text that is no part of
that data, in windows of 256 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import data
import models
import numpy as np
from numpy.typing import NDArray

import onnxq
from onnxq import runtime

_WINDOW = 256


def main() -> None:
    """Run the story and print what it measured."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--tokens", type=int, default=4096, help="tokens to judge on")
    arguments.add_argument("--output", type=Path, help="where models go")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _run(folder, given.tokens)


def _run(folder: Path, tokens: int) -> None:
    model = models.path("smollm2")
    windows = data.token_windows(tokens // _WINDOW, _WINDOW)
    print(f"float        {_size(model)}, perplexity {perplexity(model, windows):.3f}")
    for word, calibration in (("no data", None), ("16 windows", data.smollm2)):
        quantized = folder / f"smollm2.{word.split()[0]}.onnx"
        onnxq.quantize(model, preset="int4", target="ort-cpu", calibration=calibration).save(
            quantized
        )
        print(f"{word:12} {_size(quantized)}, perplexity {perplexity(quantized, windows):.3f}")


def perplexity(model: Path, windows: NDArray[np.int64]) -> float:
    """Exp of the mean negative log-likelihood of each token given those before it.

    Args:
        model: A language model with inputs input_ids and attention_mask, and output logits.
        windows: Token ids [windows, tokens]; each is judged apart.
    """
    session = runtime.session(model)
    losses = []
    for window in windows:
        (logits,) = session.run(["logits"], data.token_feed(window))
        scores = logits[0, :-1].astype(np.float64)
        highest = scores.max(axis=-1, keepdims=True)
        normalizer = np.log(np.exp(scores - highest).sum(axis=-1)) + highest[:, 0]
        losses.append(normalizer - scores[np.arange(len(scores)), window[1:]])
    return float(np.exp(np.mean(losses)))


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.2f} MB"


if __name__ == "__main__":
    main()
