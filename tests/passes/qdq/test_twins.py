"""Twins: every op beside its quantized self, on the float model's own activations."""

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
from onnxq.passes.qdq.twins import add_twins
from onnxq.recipe import resolve

TWO = (
    "g (float[3, 32, 6, 6] x, float[32, 32, 3, 3] w1, float[32] wb, float[32, 32, 3, 3] w2) => "
    "(float[3, 32, 2, 2] y) { [one] a = Conv(x, w1, wb) s = Sigmoid(a) m = Mul(a, s) "
    "[two] y = Conv(m, w2) }"
)


def prepared(graph, target="rtx-sm89", **weights):
    model = with_weights(graph, **weights)
    feeds = open_feeds([random_feed(model, seed) for seed in range(3)], model)
    plan = make_plan(model, resolve("int8"), targets.get(target))
    stats = calibrate(model, feeds, plan.activations(), get("minmax"))
    return model, plan, stats, feeds


def test_the_model_becomes_sums():
    model, plan, stats, feeds = prepared(TWO)
    sums, shifts = add_twins(model, plan, stats.params)
    onnx.checker.check_model(ir.to_proto(model))
    assert list(sums) == list(shifts) == ["one", "two"]
    assert [value.name for value in model.graph.outputs] == [
        *(name for several in sums.values() for each in several for name in each),
        *(name for shift in shifts.values() for name in shift),
    ]
    feed = feeds.some()[0].feed
    _, squares, total, elements = compute(model, **feed)[4:8]
    (y,) = compute(with_weights(TWO), **feed)
    assert squares == pytest.approx((y**2).sum(), rel=1e-5)
    assert total == pytest.approx(y.sum(), rel=1e-4)
    assert elements == y.size


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_the_noise_of_an_op_alone_is_that_of_quantizing_it_alone(target):
    graph = TWO.replace("[two] y = Conv(m, w2)", "y = Neg(m)")
    model, plan, stats, feeds = prepared(graph, target)
    quantized = model.clone()
    InsertQdq(make_plan(quantized, plan.recipe, plan.target), stats.params)(quantized)
    found = measure_ops(model, plan, stats.params, feeds.some()).sqnr
    expected, got = (
        np.concatenate([compute(each, **sample.feed)[0].ravel() for sample in feeds.some()])
        for each in (model, quantized)
    )
    noise = np.mean((got.astype(np.float64) - expected) ** 2)
    assert found == {"one": pytest.approx(10 * np.log10(expected.var() / noise), abs=0.05)}


def test_the_activation_function_counts():
    """What is far below zero does not matter behind SiLU, however badly it is quantized."""
    found = {}
    for read in ("a", "m"):
        graph = TWO.replace("[two] y = Conv(m, w2)", f"y = Neg({read})")
        bias = np.r_[np.full(16, -60), np.zeros(16)].astype(np.float32)
        model, plan, stats, feeds = prepared(graph, "ort-cpu", wb=bias)
        found[read] = measure_ops(model, plan, stats.params, feeds.some()).sqnr["one"]
    assert found["a"] > found["m"] + 10


def test_the_worst_of_several_ways_counts():
    graph = TWO.replace("[two] y = Conv(m, w2)", "e = Exp(a) y = Add(m, e)")
    split = graph.replace("=> (float[3, 32, 2, 2] y)", "=> (float[n] a, float[n] y)")
    one, both = (prepared(each) for each in (graph, split))
    assert measure_ops(one[0], one[1], one[2].params, one[3].some()).sqnr != {}
    worst = measure_ops(both[0], both[1], both[2].params, both[3].some()).sqnr["one"]
    assert worst <= measure_ops(one[0], one[1], one[2].params, one[3].some()).sqnr["one"]


def test_the_model_measured_is_not_modified():
    model, plan, stats, feeds = prepared(TWO)
    before = [(node.name, [value.name for value in node.inputs]) for node in model.graph]
    measure_ops(model, plan, stats.params, feeds.some())
    assert before == [(node.name, [value.name for value in node.inputs]) for node in model.graph]


def test_an_op_without_error():
    graph = "g (float[4, 32] x, float[32, 32] w) => (float[4, 32] y) { [op] y = MatMul(x, w) }"
    model = with_weights(graph, w=np.eye(32, dtype=np.float32) * 127)
    feed = {"x": np.tile(np.arange(-127, 128, 8, dtype=np.float32), (4, 1))}
    feeds = open_feeds([feed], model)
    plan = make_plan(model, resolve("int8"), targets.get("rtx-sm89"))
    stats = calibrate(model, feeds, plan.activations(), get("minmax"))
    assert measure_ops(model, plan, stats.params, feeds.some()).sqnr == {"op": np.inf}


def test_float16_sums_do_not_overflow():
    graph = (
        "g (float16[4, 64] x, float16[64, 64] w) => (float16[4, 64] y) { [op] y = MatMul(x, w) }"
    )
    model = with_weights(graph, opset=19, w=np.full((64, 64), 8.0) * np.eye(64))
    feeds = open_feeds([{"x": random_feed(model)["x"] * 50}], model)
    plan = make_plan(model, resolve("int8"), targets.get("rtx-sm89"))
    stats = calibrate(model, feeds, plan.activations(), get("minmax"))
    assert 20 < measure_ops(model, plan, stats.params, feeds.some()).sqnr["op"] < 60
