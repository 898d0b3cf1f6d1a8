"""Which sums read codes in place of floats, and that nothing else is rewired for them."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq import targets
from onnxq.calib.feeds import open_feeds
from onnxq.calib.runner import calibrate
from onnxq.observers import get
from onnxq.passes.plan import make_plan
from onnxq.passes.qdq.insert import InsertQdq
from onnxq.recipe import resolve

INPUTS = (
    "g (float[1, 32, 8, 8] x, float[32, 32, 1, 1] w1, float[32, 32, 1, 1] w2, "
    "float[32, 32, 1, 1] w3, float[32] wb) => (float[1, 32, 8, 8] y{more}) "
    "{{ [stem] a = Conv(x, w1) r = Relu(a) [b] b = Conv(r, w2) {nodes} }}"
)
BLOCK = "[add] s = Add(b, r) [last] y = Conv(s, w3)"


def plan(nodes=BLOCK, more="", target="rtx-sm89", **recipe):
    model = with_weights(INPUTS.format(nodes=nodes, more=more))
    return model, make_plan(model, resolve("int8", **recipe), targets.get(target))


def sums(found):
    return [(residual.node, residual.index, residual.value) for residual in found.residuals]


@pytest.mark.parametrize(
    ("nodes", "index"),
    [
        (BLOCK, 1),
        ("[add] s = Add(r, b) [last] y = Conv(s, w3)", 0),
        ("g = Sigmoid(b) v = Mul(b, g) [add] s = Add(v, r) [last] y = Conv(s, w3)", 1),
        ("v = Relu(b) [c] c = Conv(v, w3) [add] y = Add(c, r)", 1),
    ],
)
def test_a_sum_reads_codes_of_what_else_only_quantized_ops_read(nodes, index):
    _, found = plan(nodes)
    assert sums(found) == [("add", index, "r")]
    assert "add" not in {kept.node for kept in found.kept}
    (row,) = (row for row in found.to_rows() if row["node"] == "add")
    assert (row["to"], row["how or why"]) == ("int8", "reads int8 symmetric per-tensor")


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        ("[add] s = Add(b, r) n = Neg(r) t = Add(s, n) [last] y = Conv(t, w3)", ""),
        (BLOCK, ", float[1, 32, 8, 8] r"),
        (BLOCK, ", float[1, 32, 8, 8] b"),
        ("[add] s = Add(b, x) [last] y = Conv(s, w3)", ""),
        ("[add] s = Add(b, a) [last] y = Conv(s, w3)", ""),
        ("n = Softmax(b) [add] s = Add(n, r) [last] y = Conv(s, w3)", ""),
        ("m = Mul(b, r) [add] s = Add(m, r) [last] y = Conv(s, w3)", ""),
        ("[mul] s = Mul(b, r) [last] y = Conv(s, w3)", ""),
        ("[add] s = Add(b, r) [two] t = Add(s, b) [last] y = Conv(t, w3)", ""),
    ],
)
def test_other_sums_stay_in_float(nodes, more):
    _, found = plan(nodes, more)
    assert sums(found) == []
    assert found.ops


def test_onnx_runtime_reads_floats():
    _, found = plan(target="ort-cpu")
    assert sums(found) == []


@pytest.mark.parametrize(
    ("left", "why"),
    [("add", "because"), ("b", "there are no codes"), ("stem", None), ("last", None)],
)
def test_a_sum_stays_in_float_with_what_it_reads(left, why):
    model, found = plan()
    found = found.leave_float({left: "because"})
    assert sums(found) == ([] if why else [("add", 1, "r")])
    if why:
        (reason,) = (kept.reason for kept in found.kept if kept.node == "add")
        assert why in reason
    assert sums(found.again(model.clone())) == sums(found)


def test_a_sum_can_be_excluded():
    _, found = plan(exclude=("ad?",))
    assert sums(found) == []
    assert [op.node for op in found.ops] == ["stem", "b", "last"]


@pytest.mark.parametrize("preset", ["int8", "fp8"])
def test_only_the_sum_is_rewired_and_the_report_names_it(preset):
    model = with_weights(INPUTS.format(nodes=BLOCK, more=""))
    feeds = [random_feed(model, seed) for seed in range(3)]
    result = onnxq.quantize(model, preset=preset, target="rtx-sm89", calibration=feeds)
    nodes = {node.name: node for node in result.model.graph}
    assert nodes["add"].inputs[1] is nodes["b"].inputs[0]
    assert nodes["add"].inputs[0] is nodes["b"].outputs[0]
    (quantize,) = (node for node, _ in nodes["stem"].outputs[0].uses()[0].node.outputs[0].uses())
    assert quantize.op_type == "QuantizeLinear"
    (decision,) = (each for each in result.report.decisions if each.node == "add")
    (beside,) = (each for each in result.report.decisions if each.node == "b")
    assert decision.action == preset
    assert decision.numbers["input_scale"] == beside.numbers["input_scale"]


def test_the_result_is_that_of_rounding_the_residual():
    model, found = plan()
    feed = random_feed(model, 1)
    feeds = open_feeds([random_feed(model, seed) for seed in range(3)], model)
    params = calibrate(model, feeds, found.activations(), get("minmax")).params
    quantized, apart = model.clone(), model.clone()
    InsertQdq(found.again(quantized), params)(quantized)
    floats = found.again(apart).leave_float({"add": "asked for"})
    InsertQdq(floats, params)(apart)
    nodes = {node.name: node for node in apart.graph}
    scale = float(nodes["b"].inputs[0].producer().inputs[1].const_value.numpy())
    assert nodes["add"].inputs[1].producer().op_type == "Relu"
    (rounded,), (plain,) = compute(quantized, **feed), compute(apart, **feed)
    assert not np.array_equal(rounded, plain)
    weights = np.abs(model.graph.initializers["w3"].const_value.numpy()).sum(axis=(1, 2, 3))
    step = float(nodes["last"].inputs[0].producer().inputs[1].const_value.numpy())
    assert np.abs(rounded - plain).max() <= (scale / 2 + step) * 1.02 * weights.max()
