"""Values inside branches, seen from outside."""

import numpy as np
import pytest
from graphs import compute, with_weights

import onnxq
from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer, readable_graphs

NESTED = """
g (bool c, bool d, float[2, 64] x, float[64, 64] w1, float[64, 64] w2) => (float[2, 64] y) {
    h = Relu(x)
    i = If (c) <
        then_branch = t () => (float[2, 64] a) {
            a = If (d) <
                then_branch = tt () => (float[2, 64] e) { [deep] m = MatMul(h, w1) e = Tanh(m) },
                else_branch = te () => (float[2, 64] f) { f = Neg(h) }
            >
        },
        else_branch = e () => (float[2, 64] b) { n = Neg(h) [other] k = MatMul(n, w2) b = Exp(k) }
    >
    y = Neg(i)
}
"""
X = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)


def value(model, name):
    return next(v for node in model.graph.all_nodes() for v in node.outputs if v.name == name)


def feed(c, d):
    return {"c": np.array(c), "d": np.array(d), "x": X}


def test_graphs_that_can_be_read():
    model = with_weights(NESTED)
    assert [graph.name for graph in readable_graphs(model)] == ["g", "t", "tt", "te", "e"]


@pytest.mark.parametrize("c", [True, False])
@pytest.mark.parametrize("d", [True, False])
def test_exposed_values(c, d):
    model = with_weights(NESTED)
    (before,) = compute(model, **feed(c, d))
    exposer = Exposer(Editor(model))
    exposed = [exposer.expose(value(model, name)) for name in ("m", "k", "h", "b", "b")]
    model.graph.outputs.extend(exposed)
    y, m, k, h, b, again = compute(model, **feed(c, d))
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(h, np.maximum(X, 0))
    assert m.size == (X.size if c and d else 0)
    assert k.size == b.size == (0 if c else X.size)
    np.testing.assert_array_equal(b, again)


def test_a_graph_input_is_itself():
    model = with_weights(NESTED)
    x = model.graph.inputs[2]
    assert Exposer(Editor(model)).expose(x) is x


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_branches_are_quantized_as_far_as_data_reaches(target):
    model = with_weights(NESTED)
    given = {"preset": "int8", "target": target}
    both = onnxq.quantize(model, calibration=[feed(True, True), feed(False, True)], **given)
    assert both.report.counts()["int8"] == 2
    for c in (True, False):
        (expected,), (found,) = (compute(m, **feed(c, True)) for m in (model, both.model))
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    one = onnxq.quantize(model, calibration=[feed(True, True)], **given)
    decisions = {d.node: d for d in one.report.decisions}
    assert decisions["deep"].action == "int8"
    assert decisions["other"].reason.startswith("no calibration sample tells the range of")
