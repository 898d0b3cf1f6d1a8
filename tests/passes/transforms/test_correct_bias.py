"""Biases take back what rounding adds to each channel on average."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

from onnxq import targets
from onnxq.calib.feeds import open_feeds
from onnxq.calib.runner import calibrate
from onnxq.fidelity import measure_ops
from onnxq.observers import get
from onnxq.passes.plan import make_plan
from onnxq.passes.qdq.insert import InsertQdq
from onnxq.passes.transforms.correct_bias import CorrectBias
from onnxq.recipe import resolve

CONV = "g (float[2, 32, 6, 6] x, float[32, 32, 3, 3] w{}) => (float[2, 32, 4, 4] y) {{ {} }}"
DENSE = "g (float[9, 32] x, float[32, 48] w{}) => (float[9, 48] y) {{ {} }}"
GRAPHS = {
    "conv": CONV.format(", float[32] wb", "[op] y = Conv(x, w, wb)"),
    "conv without a bias": CONV.format("", "[op] y = Conv(x, w)"),
    "conv in front of Relu": CONV.format(", float[32] wb", "[op] a = Conv(x, w, wb) y = Relu(a)"),
    "gemm": DENSE.format(", float[48] wb", "[op] y = Gemm(x, w, wb)"),
    "matmul and addition": DENSE.format(", float[48] wb", "[op] a = MatMul(x, w) y = Add(a, wb)"),
}


def prepared(graph, target):
    model = with_weights(graph)
    samples = [random_feed(model, seed) for seed in range(4)]
    for sample in samples:
        sample["x"] += 2  # rounded weights times a mean are a shift
    feeds = open_feeds(samples, model)
    plan = make_plan(model, resolve("int8"), targets.get(target))
    params = calibrate(model, feeds, plan.activations(), get("minmax")).params
    return model, plan, params, feeds.some()


def mean_error(model, quantized, samples):
    errors = [
        compute(quantized, **s.feed)[0].astype(np.float64) - compute(model, **s.feed)[0]
        for s in samples
    ]
    others = (0, 2, 3) if errors[0].ndim == 4 else (0,)
    return np.mean([error.mean(axis=others) for error in errors], axis=0)


def quantized(model, plan, params, shifts):
    clone = model.clone()
    again = plan.again(clone)
    corrected = CorrectBias(again, shifts)
    assert corrected(clone).modified == bool(shifts)
    InsertQdq(again, params)(clone)
    onnx.checker.check_model(ir.to_proto(clone))
    return clone


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_the_mean_of_each_channel_is_kept(graph, target):
    model, plan, params, samples = prepared(graph, target)
    shifts = measure_ops(model, plan, params, samples).shifts
    before, after = (
        np.abs(mean_error(model, quantized(model, plan, params, each), samples))
        for each in ({}, shifts)
    )
    assert after.mean() < 0.4 * before.mean()


def test_without_a_bias_a_matmul_stays_as_it_is():
    graph = DENSE.format("", "[op] y = MatMul(x, w)")
    model, plan, params, samples = prepared(graph, "rtx-sm89")
    assert measure_ops(model, plan, params, samples).shifts == {}
    assert not CorrectBias(plan, {"op": np.ones(48)})(model).modified


def test_what_others_read_too_is_not_changed():
    graph = DENSE.format(
        ", float[48] wb", "[op] a = MatMul(x, w) b = Add(a, wb) c = Neg(a) y = Add(b, c)"
    )
    model, plan, params, samples = prepared(graph, "rtx-sm89")
    assert measure_ops(model, plan, params, samples).shifts == {}


def test_in_a_branch():
    model, plan, params, samples = prepared(
        "g (float[4, 64] x, float[64, 64] w, float[64] wb) => (float[4, 64] y) { "
        "s = ReduceSum<keepdims = 0>(x) c = Cast<to = 9>(s) "
        "y = If(c) <then_branch = t () => (float[4, 64] z) { [op] z = Gemm(x, w, wb) }, "
        "else_branch = e () => (float[4, 64] z) { z = Neg(x) }> }",
        "rtx-sm89",
    )
    shifts = measure_ops(model, plan, params, samples).shifts
    assert shifts["op"].shape == (64,)
    assert np.isfinite(shifts["op"]).all()
