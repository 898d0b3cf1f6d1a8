"""SmolLM2-135M, exported with torch: 4 bits, and what they cost in its predictions."""

import data
import models
from language import distances

import onnxq


def test_perplexity(tmp_path):
    model = models.path("smollm2")
    windows = data.token_windows(4, 256)
    quantized = tmp_path / "int4.onnx"
    recipe = {"weights": {"symmetric": True}}
    result = onnxq.quantize(model, preset="int4", target="ort-cpu", recipe=recipe)
    result.save(quantized)
    assert result.report.counts()["int4"] == 30 * 7 + 2  # the head and the embedding are one matrix
    assert quantized.stat().st_size < 90e6
    (found,) = distances(model, [quantized], windows)
    print(found)
    assert found.ratio < 1.6
    assert found.kl < 0.7
    assert found.top1 > 0.5
