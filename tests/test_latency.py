"""Latency beside float's: measured where it means something, and said where it is no gain."""

import pytest
from graphs import random_feed, with_weights

import onnxq
from onnxq import pipeline
from onnxq.errors import TargetError
from onnxq.latency import Latency

GRAPH = "g (float[4, 64] x, float[64, 64] w) => (float[4, 64] y) { [op] y = MatMul(x, w) }"


def quantize(preset, target="ort-cpu"):
    model = with_weights(GRAPH)
    feeds = [random_feed(model, seed) for seed in range(3)] if preset == "int8" else None
    return onnxq.quantize(
        model, preset=preset, target=target, calibration=feeds, measure=True
    ).report


@pytest.mark.parametrize(
    ("preset", "on"), [("int8", "calibration samples"), ("int4", "made-up inputs")]
)
def test_both_models_are_measured(preset, on, monkeypatch):
    monkeypatch.setattr("onnxq.latency._MOST_RUNS", 3)
    latency = quantize(preset).latency_ms
    assert latency["on"] == on
    assert latency["float"] > 0
    assert latency["quantized"] > 0
    assert latency["speedup"] == pytest.approx(latency["float"] / latency["quantized"], rel=1e-2)


@pytest.mark.parametrize(("quantized", "warned"), [(8.0, True), (2.0, False)])
def test_what_is_no_gain_is_said(quantized, warned, monkeypatch):
    found = Latency(4.0, quantized, "calibration samples")
    monkeypatch.setattr(pipeline, "measure_latency", lambda *_: found)
    report = quantize("int8")
    text = "runs at 0.50 of float's speed on this CPU (8.00 ms instead of 4.00 ms"
    assert any(text in warning for warning in report.warnings) == warned
    assert "4.0 ms in float" in report.to_html()


@pytest.mark.parametrize("target", ["rtx-sm89", "ort-cuda"])
def test_other_hardware_is_refused(target):
    with pytest.raises(TargetError, match=f"The latency on '{target}' .* cannot be measured here"):
        quantize("int4", target)
