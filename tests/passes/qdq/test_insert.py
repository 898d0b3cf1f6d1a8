"""Q/DQ nodes: where they go, what they hold, and that the result computes what it should."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

from onnxq import targets
from onnxq.observers import get
from onnxq.passes.plan import make_plan
from onnxq.passes.qdq.insert import InsertQdq
from onnxq.recipe import resolve
from onnxq.types import QuantSpec

CHAIN = """
g (float[2, 32, 8, 8] x, float[32, 32, 3, 3] w1, float[32] wb1, float[32, 32, 3, 3] w2,
   float[32, 10] w3, float[10] wb3)
=> (float[2, 10] y) {
    [first] a = Conv(x, w1, wb1)
    [relu] b = Relu(a)
    [second] c = Conv(b, w2)
    [pool] d = GlobalAveragePool(c)
    [flat] e = Flatten(d)
    [head] y = Gemm(e, w3, wb3)
}
"""


def params(name, spec):
    observer = get("minmax")
    state = observer.update(observer.init(), np.array([-2.0, 6.0]))
    return observer.finish(state, spec)


def insert(model, target="ort-cpu"):
    plan = make_plan(model, resolve("int8"), targets.get(target))
    assert InsertQdq(plan, params)(model).modified
    return {node.name: node for node in model.graph}


def op_types(model):
    return [node.op_type for node in model.graph]


def constant(value):
    return value.const_value.numpy()


def test_every_operand_comes_through_a_dequantize_linear():
    nodes = insert(with_weights(CHAIN))
    for name in ("first", "second", "head"):
        producers = [value.producer().op_type for value in nodes[name].inputs]
        assert producers == ["DequantizeLinear"] * len(producers)


def test_biases_are_int32_only_where_the_target_wants_them():
    nodes = insert(with_weights(CHAIN))
    assert nodes["first"].inputs[2].producer().inputs[0].dtype == ir.DataType.INT32
    nodes = insert(with_weights(CHAIN), "rtx-sm89")
    assert nodes["first"].inputs[2].is_initializer()


def test_scales_are_scalars_and_engines_get_zero_points_of_zero():
    nodes = insert(with_weights(CHAIN), "rtx-sm89")
    quantize = nodes["first"].inputs[0].producer().inputs[0].producer()
    assert constant(quantize.inputs[1]).shape == ()
    assert constant(quantize.inputs[2]) == 0
    assert constant(quantize.inputs[2]).dtype == np.int8


def test_the_numbers_of_an_asymmetric_activation():
    nodes = insert(with_weights(CHAIN))
    quantize = nodes["first"].inputs[0].producer().inputs[0].producer()
    scale = 8 / 255
    assert constant(quantize.inputs[1]) == pytest.approx(scale)
    assert constant(quantize.inputs[2]) == round(2 / scale)


def test_an_output_is_quantized_behind_its_activation_and_once():
    model = with_weights(CHAIN)
    nodes = insert(model)
    assert nodes["relu"].inputs[0].producer() is nodes["first"]
    after = nodes["second"].inputs[0].producer()
    assert after.op_type == "DequantizeLinear"
    assert after.inputs[0].producer().inputs[0].producer() is nodes["relu"]
    # x, b, c, e
    assert op_types(model).count("QuantizeLinear") == 4


def test_all_readers_of_a_value_share_its_quantization():
    model = with_weights(
        "g (float[2, 32, 8, 8] x, float[32, 32, 1, 1] w1, float[32, 32, 1, 1] w2) => "
        "(float[2, 32, 8, 8] y) { [a] p = Conv(x, w1) [b] q = Conv(x, w2) r = Add(p, x) "
        "y = Add(r, q) }"
    )
    nodes = insert(model, "rtx-sm89")
    assert nodes["a"].inputs[0] is nodes["b"].inputs[0]
    assert op_types(model).count("QuantizeLinear") == 1
    residual = next(node for node in model.graph if node.op_type == "Add")
    assert residual.inputs[1].is_graph_input()


@pytest.mark.parametrize("wide", ["first", "second"])
def test_ops_may_differ_in_how_they_read_a_value(wide):
    """One op in 16 bits: what it hands on, or reads, is quantized for each reader's own spec."""
    model = with_weights(CHAIN, opset=21)
    before = model.clone()
    plan = make_plan(model, resolve("int8"), targets.get("ort-cpu"))
    spec = QuantSpec("uint16", symmetric=False)
    ops = tuple(replace(o, activation=spec) if o.node == wide else o for o in plan.ops)
    assert InsertQdq(replace(plan, ops=ops), params)(model).modified
    found = {}
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm"):
            quantize = node.inputs[0].producer().inputs[0].producer()
            found[node.name] = quantize.outputs[0].dtype
            source = quantize.inputs[0].producer()
            assert source is None or source.op_type != "DequantizeLinear"
    expected = dict.fromkeys(("first", "second", "head"), ir.DataType.UINT8)
    assert found == expected | {wide: ir.DataType.UINT16}
    feed = random_feed(model)
    feed["x"] = np.clip(feed["x"], -2, 6)
    (a,), (b,) = compute(before, **feed), compute(model, **feed)
    assert a.shape == b.shape


def test_a_shared_weight_is_stored_once_and_dequantized_for_each():
    model = with_weights(
        "g (float[2, 32, 8, 8] x, float[32, 32, 1, 1] w) => (float[2, 32, 8, 8] y) "
        "{ [a] p = Conv(x, w) [b] y = Conv(p, w) }"
    )
    nodes = insert(model, "rtx-sm89")
    first, second = (nodes[name].inputs[1].producer() for name in "ab")
    assert first is not second
    assert first.inputs[0] is second.inputs[0]


def test_a_graph_output_keeps_its_name_and_its_float_values():
    model = with_weights(
        "g (float[2, 32, 8, 8] x, float[32, 32, 1, 1] w1) => (float[2, 32, 8, 8] y) "
        "{ [a] y = Conv(x, w1) }"
    )
    insert(model)
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_the_result_is_close_to_the_float_model(target):
    small = np.random.default_rng(1).normal(0, 0.03, (2, 32, 32, 3, 3))
    model = with_weights(CHAIN, w1=small[0], w2=small[1])
    feed = random_feed(model)
    feed["x"] = np.clip(feed["x"], -2, 6)
    (before,) = compute(model, **feed)
    insert(model, target)
    (after,) = compute(model, **feed)
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()
    assert not np.array_equal(after, before)


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
@pytest.mark.parametrize("op", ["y = MatMul(x, t)", "y = Gemm(x, t, wb)"])
def test_a_weight_behind_a_transpose(target, op):
    model = with_weights(
        "g (float[4, 64] x, float[32, 64] w, float[32] wb) => (float[4, 32] y) "
        f"{{ t = Transpose(w) [op] {op} }}"
    )
    feed = random_feed(model)
    feed["x"] = np.clip(feed["x"], -2, 6)
    (before,) = compute(model, **feed)
    nodes = insert(model, target)
    dequantize = nodes["op"].inputs[1].producer()
    assert dequantize.op_type == "DequantizeLinear"
    assert dequantize.inputs[0].shape == (64, 32)
    (after,) = compute(model, **feed)
    np.testing.assert_allclose(after, before, atol=0.1)


def test_float16_computes_in_float16():
    model = with_weights(
        "g (float16[2, 32, 8, 8] x, float16[32, 32, 1, 1] w) => (float16[2, 32, 8, 8] y) "
        "{ [a] y = Conv(x, w) }",
        opset=19,
    )
    nodes = insert(model, "rtx-sm89")
    assert {value.dtype for value in nodes["a"].inputs} == {ir.DataType.FLOAT16}
    assert compute(model, **random_feed(model))[0].dtype == np.float16


def test_a_plan_of_nothing_modifies_nothing():
    model = with_weights(CHAIN)
    plan = make_plan(model, resolve("int8", exclude=("*",)), targets.get("ort-cpu"))
    assert not InsertQdq(plan, params)(model).modified
