"""Equalized models compute the same; the differences between channels are in the weights."""

import numpy as np
import pytest
from graphs import compute, plan_of_everything, random_feed, with_weights

from onnxq.passes.transforms.equalize import Equalize, equalized, strength

FORMS = {
    "conv": ("Conv(x, w)", "2, 8, 5, 5", "6, 8, 3, 3", 8),
    "grouped": ("Conv <group = 2> (x, w)", "2, 8, 5, 5", "6, 4, 3, 3", 8),
    "depthwise": ("Conv <group = 8> (x, w)", "2, 8, 5, 5", "16, 1, 3, 3", 8),
    "conv-1d": ("Conv(x, w)", "2, 8, 5", "6, 8, 3", 8),
    "conv-transpose": ("ConvTranspose(x, w)", "2, 8, 5, 5", "8, 6, 2, 2", 8),
    "matmul": ("MatMul(x, w)", "2, 3, 8", "8, 6", 8),
    "gemm": ("Gemm(x, w)", "2, 8", "8, 6", 8),
    "gemm-transb": ("Gemm <transB = 1> (x, w)", "2, 8", "6, 8", 8),
    "transpose": ("MatMul(x, t)", "2, 8", "6, 8", 8),
}


def model_of(form):
    op, x, w, _ = FORMS[form]
    transpose = "t = Transpose(w)" if form == "transpose" else ""
    return with_weights(
        f"g (float[{x}] x, float[{w}] w) => (float y) {{ {transpose} [op] y = {op} }}"
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_model_computes_the_same(form):
    model = model_of(form)
    feed = random_feed(model)
    before = compute(model, **feed)
    factors = np.linspace(0.1, 10, FORMS[form][3])
    assert Equalize(plan_of_everything(model), {"x": factors})(model).modified
    np.testing.assert_allclose(compute(model, **feed), before, rtol=1e-4, atol=1e-5)
    op = next(node for node in model.graph if node.name == "op")
    assert op.inputs[0].name == equalized("x")
    divided = compute_value(model, equalized("x"), feed)
    axis = 1 if "conv" in form or form in ("grouped", "depthwise") else -1
    np.testing.assert_allclose(
        np.moveaxis(divided, axis, -1) * factors, np.moveaxis(feed["x"], axis, -1), rtol=1e-5
    )


def compute_value(model, name, feed):
    value = next(v for node in model.graph for v in node.outputs if v.name == name)
    model.graph.outputs.append(value)
    found = compute(model, **feed)[-1]
    model.graph.outputs.pop()
    return found


@pytest.mark.parametrize("form", FORMS)
def test_full_strength_makes_all_channels_equal(form):
    model = model_of(form)
    plan = plan_of_everything(model)
    (op,) = plan.ops
    largest = np.logspace(-1, 2, 8)
    found = strength(op, plan.graph_nodes["op"], largest, 1.0)
    assert np.ptp(largest / found) < 1e-9 * largest.max()
    assert np.exp(np.log(found).mean()) == pytest.approx(1)


def test_no_strength_makes_all_weights_equal():
    model = model_of("matmul")
    plan = plan_of_everything(model)
    (op,) = plan.ops
    found = strength(op, plan.graph_nodes["op"], np.logspace(-1, 2, 8), 0.0)
    per_input = np.abs(model.graph.initializers["w"].const_value.numpy()).max(axis=1)
    assert np.ptp(per_input * found) < 1e-6


def test_channels_that_are_never_used():
    model = model_of("matmul")
    plan = plan_of_everything(model)
    found = strength(plan.ops[0], plan.graph_nodes["op"], np.r_[np.zeros(7), 3.0], 0.5)
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_ops_that_share_an_activation_share_its_division():
    model = with_weights(
        "g (float[2, 8] x, float[8, 4] w1, float[8, 4] w2) => (float[2, 4] y) "
        "{ [a] h = MatMul(x, w1) [b] i = MatMul(x, w2) r = Relu(x) s = ReduceSum(r) "
        "j = Add(h, i) y = Add(j, s) }"
    )
    feed = random_feed(model)
    before = compute(model, **feed)
    Equalize(plan_of_everything(model), {"x": np.linspace(0.5, 2, 8)})(model)
    np.testing.assert_allclose(compute(model, **feed), before, rtol=1e-5)
    assert [node.op_type for node in model.graph].count("Mul") == 1
    relu = next(node for node in model.graph if node.op_type == "Relu")
    assert relu.inputs[0].is_graph_input()


def test_nothing_to_do_modifies_nothing():
    model = model_of("conv")
    assert not Equalize(plan_of_everything(model), {})(model).modified
