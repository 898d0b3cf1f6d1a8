"""Language models with a KV cache: 4 bits through the cache are those without it."""

import data
import models
import numpy as np
import pytest

import onnxq
from onnxq import runtime

PROMPT, STEPS = 16, 32


@pytest.fixture(scope="module")
def int4(tmp_path_factory):
    """Files of both forms of SmolLM2 in 4 bits, and the report of that with a cache."""
    folder = tmp_path_factory.mktemp("int4")
    reports = []
    for name in ("smollm2", "smollm2-kv"):
        result = onnxq.quantize(models.path(name), preset="int4", target="ort-cpu")
        result.save(folder / f"{name}.onnx")
        reports.append(result.report)
    return {name: folder / f"{name}.onnx" for name in ("smollm2", "smollm2-kv")}, reports[1]


class Decoder:
    """A model that keeps what it has seen in its cache."""

    def __init__(self, path):
        self.session = runtime.session(path)
        self.seen = 0
        self.cache = None

    def logits(self, ids):
        self.seen += len(ids)
        feed = {"input_ids": ids[None], "attention_mask": np.ones((1, self.seen), np.int64)}
        feed = data.with_empty_cache(feed) if self.cache is None else feed | self.cache
        logits, *present = self.session.run(None, feed)
        names = [spec.name for spec in self.session.get_inputs()][2:]
        self.cache = dict(zip(names, present, strict=True))
        return logits[0]


def without_cache(path):
    session = runtime.session(path)
    return lambda ids: session.run(["logits"], data.token_feed(ids))[0][0]


def greedy(decoder, prompt):
    """The tokens that follow, and the logits behind each token."""
    logits, chosen = decoder.logits(prompt), []
    for _ in range(STEPS):
        chosen.append(logits[-1].argmax())
        logits = np.concatenate([logits, decoder.logits(np.array(chosen[-1:]))])
    return np.array(chosen), logits


@pytest.mark.parametrize("bits", ["float", "int4"])
def test_decoding_through_the_cache(int4, bits):
    files = {name: models.path(name) if bits == "float" else int4[0][name] for name in int4[0]}
    prompt = data.token_windows(1, PROMPT)[0]
    chosen, logits = greedy(Decoder(files["smollm2-kv"]), prompt)
    ids = np.concatenate([prompt, chosen])
    whole = without_cache(files["smollm2"])(ids)
    np.testing.assert_allclose(logits, whole, atol=1e-3)
    np.testing.assert_array_equal(whole[PROMPT - 1 : -1].argmax(axis=-1), chosen)
    assert len(set(chosen)) > 3  # not one token over and over
    at_once = Decoder(files["smollm2-kv"]).logits(ids)
    np.testing.assert_allclose(at_once, whole, atol=1e-3)


def test_every_product_is_in_4_bits(int4):
    files, report = int4
    # Query, key and value are one product; the head and the embedding are one matrix.
    assert report.counts()["int4"] == 30 * 5 + 2
    assert files["smollm2-kv"].stat().st_size < 90e6
    left = {d.op_type: d.reason for d in report.decisions if d.action == "float"}
    assert "MatMul" not in left
    assert "no weights" in left["GroupQueryAttention"]
    assert "gathers from what is computed" in left["Gather"]  # the length of the mask
