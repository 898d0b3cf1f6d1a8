"""Divisions that cost nothing at run time: the same numbers come out, and no node is added."""

import numpy as np
import pytest
from graphs import compute, plan_of_everything, random_feed, with_weights

from onnxq.passes.transforms.equalize import Equalize, absorptions

IMAGES = "g (float[2, 8, 6, 6] x, float[8, 8, 3, 3] w1, float[8] wb, float[4, 8, 1, 1] w2"
ROWS = "g (float[5, 8] x, float[8, 8] w1, float[8] wb, float[8, 4] w2"
ABSORBING = {
    "conv": f"{IMAGES}) => (float y) {{ h = Conv(x, w1, wb) r = Relu(h) [op] y = Conv(r, w2) }}",
    "pool": f"{IMAGES}) => (float y) {{ h = Conv(x, w1) r = LeakyRelu(h) "
    "p = MaxPool<kernel_shape = [2, 2]>(r) [op] y = Conv(p, w2) }",
    "depthwise": "g (float[2, 8, 6, 6] x, float[8, 1, 3, 3] w1, float[8] wb, float[4, 8, 1, 1] w2"
    ") => (float y) { h = Conv<group = 8>(x, w1, wb) r = Relu(h) [op] y = Conv(r, w2) }",
    "gemm": f"{ROWS}) => (float y) {{ h = Gemm(x, w1, wb) r = Relu(h) [op] y = Gemm(r, w2) }}",
    "matmul": f"{ROWS}) => (float y) {{ m = MatMul(x, w1) h = Add(m, wb) r = Relu(h) "
    "[op] y = MatMul(r, w2) }",
    "norm": f"{ROWS}, float[8] wc) => (float y) {{ n = LayerNormalization(x, wc, wb) "
    "[op] y = MatMul(n, w2) }",
    "norm in parts": f"{ROWS}) => (float y) {{ s = Mul(x, wb) n = Add(s, wb) "
    "[op] y = MatMul(n, w2) }",
}
NOT = {
    "others read it": f"{ROWS}) => (float y, float z) {{ h = Gemm(x, w1, wb) r = Relu(h) "
    "[op] y = Gemm(r, w2) z = Neg(r) }",
    "an output": f"{ROWS}) => (float y, float r) {{ h = Gemm(x, w1, wb) r = Relu(h) "
    "[op] y = Gemm(r, w2) }",
    "another function": f"{ROWS}) => (float y) {{ h = Gemm(x, w1, wb) r = Sigmoid(h) "
    "[op] y = Gemm(r, w2) }",
    "a sum": f"{ROWS}) => (float y) {{ h = Gemm(x, w1, wb) r = Add(h, x) [op] y = Gemm(r, w2) }}",
    "an input": f"{ROWS}) => (float y) {{ [op] y = Gemm(x, w2) }}",
    "a tied weight": f"{ROWS}) => (float y, float z) {{ h = MatMul(x, w1) z = MatMul(h, w1) "
    "r = Relu(z) [op] y = MatMul(r, w2) }",
}


def model_and_activation(graph):
    model = with_weights(graph, wb=np.linspace(0.5, 2, 8))
    op = next(node for node in model.graph if node.name == "op")
    return model, op.inputs[0].name


@pytest.mark.parametrize("graph", ABSORBING.values(), ids=ABSORBING)
def test_the_producer_takes_the_division_in(graph):
    model, name = model_and_activation(graph)
    feed = random_feed(model)
    before, nodes = compute(model, **feed), len(model.graph)
    plan = plan_of_everything(model)
    assert absorptions(plan)[name].values[0].name == name
    factors = np.linspace(0.1, 10, 8)
    assert Equalize(plan, {name: factors})(model).modified
    assert len(model.graph) == nodes
    np.testing.assert_allclose(compute(model, **feed), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", NOT.values(), ids=NOT)
def test_where_that_would_change_something_else_it_is_done_at_run_time(graph):
    model, name = model_and_activation(graph)
    assert name not in absorptions(plan_of_everything(model))


def test_an_op_in_the_middle_takes_in_both():
    """Its weight is multiplied along both axes."""
    model = with_weights(
        "g (float[5, 8] x, float[8, 8] w1, float[8, 8] w2, float[8, 8] w3) => (float y) { "
        "a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Relu(c) y = MatMul(d, w3) }"
    )
    for node in model.graph:
        node.name = node.outputs[0].name
    feed = random_feed(model)
    before = compute(model, **feed)
    strengths = {"b": np.linspace(0.1, 10, 8), "d": np.linspace(5, 0.2, 8)}
    assert Equalize(plan_of_everything(model), strengths)(model).modified
    assert len(model.graph) == 5
    np.testing.assert_allclose(compute(model, **feed), before, rtol=1e-4, atol=1e-5)
