"""The op that breaks an output is found, also where others stand before and behind it."""

import numpy as np
import pytest
from graphs import random_feed, with_weights

import onnxq
from onnxq import targets
from onnxq.attribution import shares
from onnxq.calib.feeds import open_feeds
from onnxq.calib.runner import calibrate
from onnxq.fidelity import measure_ops
from onnxq.observers import get
from onnxq.outputs import Outputs
from onnxq.passes.plan import make_plan
from onnxq.recipe import resolve
from onnxq.recovery import inside

# Two ways from x to an output each, and one that both share.
TWO_WAYS = (
    "g (float[16, 64] x, float[64, 64] w0, float[64, 64] w1, float[64, 64] w2, float[64] wo, "
    "float[64, 64] w3, float[64] wi) => (float[16, 64] y, float[16, 64] z) { "
    "[shared] s = MatMul(x, w0) [left] l = MatMul(s, w1) y = Relu(l) "
    "[right] r = MatMul(s, w2) o = Mul(r, wo) [broken] b = MatMul(o, w3) c = Mul(b, wi) "
    "z = Add(s, c) }"
)
OUTLIERS = np.r_[np.full(2, 3000.0), np.ones(62)]


def model():
    """`broken` reads two channels that take all codes, and weighs them down again."""
    w3 = np.random.default_rng(0).normal(size=(64, 64))
    w3[:2] *= 1e-3
    return with_weights(TWO_WAYS, wo=OUTLIERS, w3=w3, wi=np.ones(64))


def test_shares():
    float_model = model()
    feeds = open_feeds([random_feed(float_model, seed) for seed in range(3)], float_model)
    plan = make_plan(float_model, resolve("int8"), targets.get("rtx-sm89"))
    params = calibrate(float_model, feeds, plan.activations(), get("minmax")).params
    samples = feeds.some()
    alone = measure_ops(float_model, plan, params, samples).sqnr
    parts = Outputs(float_model, samples).parts(plan, params)
    noise = inside(float_model, plan, params, samples)
    found = {
        name: shares(float_model, alone, noise, next(p for p in parts if p.output == name))
        for name in ("y", "z")
    }
    assert sum(found["y"].values()) == pytest.approx(1, abs=0.1)
    assert found["y"]["broken"] == found["y"]["right"] == 0
    assert found["y"]["left"] > 0.2
    assert found["y"]["shared"] > 0.2
    assert found["z"]["broken"] > 0.9


def test_the_op_that_breaks_an_output_is_left_in_float():
    float_model = model()
    result = onnxq.quantize(
        float_model,
        preset="int8",
        target="rtx-sm89",
        calibration=[random_feed(float_model, seed) for seed in range(3)],
        recipe={
            "activations": {"min_op_sqnr": None},
            "recovery": {"max_float_ops": 0.25, "max_float_weights": 0.25},
        },
    )
    left = {d.node: d.reason for d in result.report.decisions if "noise of" in d.reason}
    assert left.keys() <= {"broken"}
    assert result.report.output_sqnr_db > 20
