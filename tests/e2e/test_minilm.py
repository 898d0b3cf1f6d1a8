"""MiniLM in 4 bits: its outputs stay where they are, and an engine runs fused int4 products."""

import data
import models
import numpy as np
import pytest
from embeddings_int4 import SHAPES, embeddings
from text_lines import EVALUATION

import onnxq
from onnxq import runtime


@pytest.fixture(scope="module")
def model():
    return models.path("minilm")


@pytest.fixture(scope="module")
def cosine(model, tmp_path_factory):
    sentences = data.sentences(200, EVALUATION)
    reference = embeddings(model, sentences)

    def mean_cosine(target, **recipe):
        path = tmp_path_factory.mktemp("minilm") / "int4.onnx"
        onnxq.quantize(model, preset="int4", target=target, recipe=recipe).save(path)
        return float(np.mean(np.sum(reference * embeddings(path, sentences), axis=1)))

    return mean_cosine


def test_cosine_to_float(cosine):
    assert cosine("ort-cpu") >= 0.965


def test_the_table_of_words_costs_little(cosine):
    assert cosine("ort-cpu") >= cosine("ort-cpu", ops=["MatMul"]) - 0.003


def test_zero_points_are_worth_it(cosine):
    symmetric = cosine("ort-cpu", weights={"symmetric": True})
    assert 0.95 <= symmetric < cosine("ort-cpu")


def test_both_forms_hold_the_same_numbers(model, tmp_path):
    outputs = []
    for target in ("ort-cpu", "rtx-sm89"):
        path = tmp_path / f"{target}.onnx"
        recipe = {"weights": {"symmetric": True}}
        onnxq.quantize(model, preset="int4", target=target, recipe=recipe).save(path)
        # Optimized, ONNX Runtime rounds the activations of a dequantized product to 8 bits too.
        session = runtime.session(path, optimize=False)
        feeds = map(data.sentence_feed, data.sentences(10, EVALUATION))
        outputs.append([session.run(None, feed)[0] for feed in feeds])
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_the_engine_runs_in_int4(model, tmp_path):
    result = onnxq.quantize(model, preset="int4", target="rtx-sm89")
    built = onnxq.build(result.model, tmp_path / "e", target="rtx-sm89", shapes=SHAPES)
    summary = built.attestation.summary()
    assert summary["proven"] == summary["planned"] == 36
    assert result.report.counts()["int4"] == 36 + 1  # and the table of words
    # The table is no more than codes and scales in the engine.
    assert built.engine.stat().st_size < 0.25 * model.stat().st_size
