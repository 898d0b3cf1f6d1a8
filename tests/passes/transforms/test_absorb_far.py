"""Divisions that go past gates and attention: the same numbers come out, and no node is added."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, plan_of_everything, random_feed, with_weights
from onnx_ir.passes import common

from onnxq.passes.transforms.equalize import Equalize, absorptions

ROWS = "g (float[5, 8] x, float[8, 16] w1, float[8, 16] w2, float[16] wb, float[16, 6] w3)"
HEADS = """
g (float[2, 5, 8] x, float[8, {wide}] w1, float[8, {wide}] w2, float[{wide}] wb,
   float[16, 6] w3, float[8, 16] wq) => (float[2, 5, 6] y)
<int64[4] apart = {{0, 0, 4, 4}}, int64[4] split = {{0, 0, {heads}, 4}},
 int64[3] join = {{0, 0, 16}}, int64[1] two = {{2}}, int64[5] times = {{2, {heads}, {times}, 5, 4}},
 int64[4] flat = {{2, 4, 5, 4}}>
{{
    q1 = MatMul(x, wq)
    q2 = Reshape(q1, apart)
    q = Transpose<perm = [0, 2, 3, 1]>(q2)
    k1 = MatMul(x, wq)
    k2 = Reshape(k1, apart)
    k = Transpose<perm = [0, 2, 1, 3]>(k2)
    scores = MatMul(k, q)
    shares = Softmax<axis = -1>(scores)
    v1 = MatMul(x, w1)
    v2 = Add(v1, wb)
    v3 = Reshape(v2, split)
    v4 = Transpose<perm = [0, 2, 1, 3]>(v3)
    {repeat}
    mixed = MatMul(shares, v)
    back = Transpose<perm = [0, 2, 1, 3]>(mixed)
    joined = Reshape(back, join)
    [op] y = MatMul(joined, w3)
}}
"""
SHARED = "v5 = Unsqueeze(v4, two) v6 = Expand(v5, times) v = Reshape(v6, flat)"
GATE = "{ a = MatMul(x, w1) s = Sigmoid(a) u = Gemm(x, w2, wb) h = Mul(s, u) [op] y = MatMul(h, w3)"
ABSORBING = {
    "gate": f"{ROWS} => (float[5, 6] y) {GATE} }}",
    "silu": f"{ROWS} => (float[5, 6] y) {{ a = MatMul(x, w1) s = Sigmoid(a) g = Mul(a, s) "
    "u = MatMul(x, w2) h = Mul(g, u) [op] y = MatMul(h, w3) }",
    "norm": "g (float[5, 8] x, float[8] w1, float[8, 6] w3) => (float[5, 6] y) "
    "{ n = RMSNormalization(x, w1) [op] y = MatMul(n, w3) }",
    "heads": HEADS.format(wide=16, heads=4, times=1, repeat="v = Identity(v4)"),
    "shared heads": HEADS.format(wide=8, heads=2, times=2, repeat=SHARED),
}
NOT = {
    "a cache": HEADS.format(wide=8, heads=2, times=2, repeat=f"cached = Neg(v4) {SHARED}").replace(
        "float[2, 5, 6] y)", "float[2, 5, 6] y, float[2, 2, 5, 4] cached)"
    ),
    "heads in another order": HEADS.format(wide=8, heads=2, times=2, repeat=SHARED).replace(
        "{2}", "{1}"
    ),
    "two others": f"{ROWS} => (float[5, 6] y) {{ a = MatMul(x, w1) s = Sigmoid(a) "
    "t = Tanh(a) h = Mul(s, t) [op] y = MatMul(h, w3) }",
    "read elsewhere": f"{ROWS} => (float[5, 6] y, float[5, 16] z) {GATE} z = Neg(u) }}",
    "its own output": f"{ROWS} => (float[5, 6] y, float[5, 16] h) {GATE} }}",
}


def model_and_plan(graph):
    model = with_weights(graph, 23)
    common.ShapeInferencePass()(model)
    for node in [node for node in model.graph if node.op_type == "Identity"]:
        ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
        model.graph.remove(node, safe=True)
    return model, plan_of_everything(model)


def activation(plan):
    return plan.inputs["op"]


@pytest.mark.parametrize("graph", ABSORBING.values(), ids=ABSORBING)
def test_the_producer_takes_the_division_in(graph):
    model, plan = model_and_plan(graph)
    feed = random_feed(model)
    before, nodes = compute(model, **feed), len(model.graph)
    name = activation(plan)
    assert name not in absorptions(plan)
    ways = absorptions(plan, far=True)
    way = ways[name]
    assert way.values[0].name == name
    factors = np.linspace(0.1, 10, 8 if "RMS" in graph else 16)
    if way.repeats is not None:
        factors = way.repeats.shared(factors)
    assert Equalize(plan, {name: factors}, ways)(model).modified
    assert len(model.graph) == nodes
    np.testing.assert_allclose(compute(model, **feed)[0], before[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", NOT.values(), ids=NOT)
def test_what_would_change_something_else_is_left(graph):
    _, plan = model_and_plan(graph)
    assert activation(plan) not in absorptions(plan, far=True)


def test_shared_heads_have_shared_factors():
    _, plan = model_and_plan(ABSORBING["shared heads"])
    repeats = absorptions(plan, far=True)[activation(plan)].repeats
    assert (repeats.heads, repeats.times, repeats.size) == (2, 2, 4)
    shared = repeats.shared(np.arange(16.0)).reshape(4, 4)
    np.testing.assert_array_equal(shared, [[2, 3, 4, 5]] * 2 + [[10, 11, 12, 13]] * 2)
