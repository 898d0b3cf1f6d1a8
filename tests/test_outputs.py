"""The outputs of the quantized model beside the float model's, kept or computed again."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq import outputs, targets
from onnxq.accuracy import _enough
from onnxq.calib.feeds import Sample, open_feeds
from onnxq.calib.runner import calibrate
from onnxq.fidelity import measure_ops
from onnxq.observers import get
from onnxq.passes.plan import make_plan
from onnxq.passes.qdq.insert import InsertQdq
from onnxq.passes.transforms.correct_bias import CorrectBias
from onnxq.recipe import resolve

TWO = (
    "g (float[1, 32, 6, 6] x, float[32, 32, 1, 1] w1, float[32, 32, 3, 3] w2, float[32] wb) => "
    "(float[1, 32, 4, 4] z, float[1, 32, 6, 6] y) "
    "{ [one] h = Conv(x, w1, wb) [act] y = Relu(h) [two] z = Conv(y, w2) }"
)


def prepared():
    model = with_weights(TWO)
    feeds = open_feeds([random_feed(model, seed) for seed in range(3)], model)
    plan = make_plan(model, resolve("int8"), targets.get("ort-cpu"))
    params = calibrate(model, feeds, plan.activations(), get("minmax")).params
    return model, plan, params, feeds.some()


@pytest.mark.parametrize("kept", [1 << 20, 2 * 4 * 32 * (36 + 16), 0])
def test_parts_are_those_of_the_model_that_is_written(kept, monkeypatch):
    monkeypatch.setattr(outputs, "_KEPT_BYTES", kept)
    model, plan, params, samples = prepared()
    shifts = measure_ops(model, plan, params, samples).shifts
    found = outputs.Outputs(model, samples)
    clone = model.clone()
    again = plan.again(clone)
    CorrectBias(again, shifts)(clone)
    InsertQdq(again, params)(clone)
    for part in found.parts(plan, params, shifts):
        signal = noise = 0.0
        index = ["z", "y"].index(part.output)
        for sample in samples:
            expected, got = (compute(m, **sample.feed)[index] for m in (model, clone))
            of = slice(None) if part.axis is None else (slice(None), part.channels)
            signal += (expected[of].astype(np.float64) ** 2).sum()
            noise += ((got - expected)[of].astype(np.float64) ** 2).sum()
        assert noise > 0
        assert part.sqnr == pytest.approx(10 * np.log10(signal / noise), abs=0.01)
    assert found.parts(plan, params, shifts)[0].sqnr != found.parts(plan, params)[0].sqnr


def test_fp8_keeps_its_relu():
    model = with_weights(TWO)
    feeds = [random_feed(model, seed) for seed in range(3)]
    report = onnxq.quantize(model, preset="fp8", target="rtx-sm89", calibration=feeds).report
    assert min(report.outputs.values()) > 20


def test_few_large_feeds_are_enough_to_measure_ops():
    large = [Sample(str(i), {"x": np.zeros((3, 1000, 1000))}) for i in range(8)]
    small = [Sample(str(i), {"x": np.zeros((3, 100, 100))}) for i in range(8)]
    assert _enough(large) == large[:4]
    assert _enough(small) == small
