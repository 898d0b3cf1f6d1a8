"""The quantized model beside the float one: the outputs of both, and sums over what differs."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

from onnxq import targets
from onnxq.calib.feeds import open_feeds
from onnxq.calib.runner import calibrate
from onnxq.observers import get
from onnxq.passes.plan import make_plan
from onnxq.passes.qdq.beside import put_beside
from onnxq.passes.qdq.insert import InsertQdq
from onnxq.recipe import resolve

GRAPH = (
    "g (float[2, 32, 6, 6] x, float[32, 32, 3, 3] w1, float[32] wb, float[32, 32, 1, 1] w2) => "
    "(float[2, 32, 4, 4] y, float[2, 32, 4, 4] r) { [one] a = Conv(x, w1, wb) r = Relu(a) "
    "[two] b = Conv(r, w2) y = Add(r, b) }"
)
RESIDUAL = (
    "g (float[2, 32, 6, 6] x, float[32, 32, 1, 1] w1, float[32, 32, 1, 1] w2, "
    "float[32, 32, 1, 1] w3) => (float[2, 32, 6, 6] y) { [one] a = Conv(x, w1) r = Relu(a) "
    "[two] b = Conv(r, w2) [sum] s = Add(b, r) [three] y = Conv(s, w3) }"
)
BRANCHES = (
    "g (float[2, 64] x, float[64, 64] w1, float[64, 64] w2) => (float[2, 64] y) { "
    "[one] a = MatMul(x, w1) s = ReduceSum<keepdims = 0>(a) c = Cast<to = 9>(s) "
    "y = If(c) <then_branch = t () => (float[2, 64] z) { [two] z = MatMul(a, w2) }, "
    "else_branch = e () => (float[2, 64] z) { z = Neg(a) }> }"
)


def prepared(graph, target):
    model = with_weights(graph)
    feeds = open_feeds([random_feed(model, seed) for seed in range(3)], model)
    plan = make_plan(model, resolve("int8"), targets.get(target))
    stats = calibrate(model, feeds, plan.activations(), get("minmax"))
    return model, plan, stats.params


@pytest.mark.parametrize("graph", [GRAPH, RESIDUAL, BRANCHES])
@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_both_models_compute_what_they_compute_alone(graph, target):
    model, plan, params = prepared(graph, target)
    feed = random_feed(model, 1)
    quantized, both = model.clone(), model.clone()
    InsertQdq(plan.again(quantized), params)(quantized)
    beside = put_beside(both, plan.again(both), params)
    onnx.checker.check_model(ir.to_proto(both))
    found = dict(zip([v.name for v in both.graph.outputs], compute(both, **feed), strict=True))
    for pair, expected, rounded in zip(
        beside.outputs, compute(model, **feed), compute(quantized, **feed), strict=True
    ):
        np.testing.assert_array_equal(found[pair[0]], expected)
        np.testing.assert_allclose(found[pair[1]], rounded, atol=1e-5)
    sums = beside.sites["one"][0]
    assert found[sums.noise] > 0
    assert set(beside.sites) == {"one"} | {op.node for op in plan.ops if graph is not BRANCHES}
    assert bool(plan.residuals) == (graph is RESIDUAL and target == "rtx-sm89")


def test_sums_are_over_all_that_was_quantized_before():
    model, plan, params = prepared(GRAPH, "rtx-sm89")
    feed = random_feed(model, 1)
    quantized, both = model.clone(), model.clone()
    InsertQdq(plan.again(quantized), params)(quantized)
    beside = put_beside(both, plan.again(both), params)
    found = dict(zip([v.name for v in both.graph.outputs], compute(both, **feed), strict=True))
    assert set(beside.values) == {"r", "b"}
    (_, r), (_, rounded) = compute(model, **feed), compute(quantized, **feed)
    noise = float(((rounded.astype(np.float64) - r) ** 2).sum())
    assert found[beside.values["r"].noise] == pytest.approx(noise, rel=1e-3)
    assert found[beside.values["r"].squares] == pytest.approx(float((r**2).sum()), rel=1e-5)
