"""SmolLM2-135M, exported with torch: 4 bits, and what they cost in perplexity."""

import data
import models
from llm_int4 import perplexity

import onnxq


def test_perplexity(tmp_path):
    model = models.path("smollm2")
    windows = data.token_windows(4, 256)
    quantized = tmp_path / "int4.onnx"
    recipe = {"weights": {"symmetric": True}}
    result = onnxq.quantize(model, preset="int4", target="ort-cpu", recipe=recipe)
    result.save(quantized)
    assert result.report.counts()["int4"] == 30 * 7 + 1
    assert quantized.stat().st_size < 0.4 * model.stat().st_size
    before, after = perplexity(model, windows), perplexity(quantized, windows)
    print(f"perplexity: float {before:.2f}, int4 {after:.2f}")
    assert before < 60
    assert after < 2 * before
