"""Experts in one op: what QMoE computes is what MoE computes of the weights that its codes hold."""

import re

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq import targets
from onnxq.errors import RecipeError
from onnxq.passes.lower import LowerOps
from onnxq.passes.plan import make_plan
from onnxq.passes.weights import rtn
from onnxq.recipe import resolve

FC3 = ", float[4, 96, 64] w3"


def experts(attributes="k = 2", gated=False, hidden=64, dtype="float", more=""):
    """A router and its experts, which are com.microsoft.MoE."""
    inner = 192 if gated else 96
    given = "r, w1, wb1, w2, wb2, w3" if more else "r, w1, wb1, w2, wb2"
    text = (
        f"g (float[7, {hidden}] x, float[{hidden}, 4] wr, float[4, {inner}, {hidden}] w1, "
        f"float[4, {inner}] wb1, float[4, {hidden}, 96] w2, float[4, {hidden}] wb2{more}) => "
        f"(float[7, {hidden}] y) {{ [router] r = MatMul(x, wr) "
        f"[moe] y = com.microsoft.MoE <{attributes}> (x, {given}) }}"
    )
    model = with_weights(text.replace("float", dtype))
    model.opset_imports["com.microsoft"] = 1
    return model


def dequantized(model, plan):
    """The float model with the weights that the codes of its experts stand for."""
    (op,) = (op for op in plan.ops if op.node == "moe")
    size = op.weight.granularity.size
    for name in ("w1", "w2"):
        value = model.graph.initializers[name]
        q = rtn.quantize(value.const_value.numpy(), op.weight)
        scale, zero = (
            np.repeat(each.astype(np.float32), size, 2)
            for each in (q.params.scale, q.params.zero_point)
        )
        exact = (q.codes.astype(np.float32) - zero) * scale
        value.const_value = ir.tensor(exact.astype(value.dtype.numpy()))
    return model


def lowered(model, **weights):
    recipe = resolve("int4", {"weights": {"algorithm": "rtn"} | weights, "exclude": ["router"]})
    plan = make_plan(model, recipe, targets.get("ort-cpu"))
    LowerOps(plan)(model)
    assert [node.op_type for node in model.graph if node.name == "moe"] == ["QMoE"]
    return plan


def check(make, tolerance=1e-5, **weights):
    model = make()
    plan = lowered(model, **weights)
    feed = random_feed(model)
    (expected,) = compute(dequantized(make(), plan), **feed)
    (found,) = compute(model, **feed)
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 32])
def test_widths_and_zero_points(bits, symmetric, block):
    check(
        lambda: experts('k = 2, activation_type = "silu", normalize_routing_weights = 1'),
        bits=bits, symmetric=symmetric, block_size=block,
    )  # fmt: skip


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize("normalizes", [0, 1])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_activations_and_routers(activation, normalizes, k):
    attributes = f'k = {k}, activation_type = "{activation}"'
    check(lambda: experts(f"{attributes}, normalize_routing_weights = {normalizes}"))


@pytest.mark.parametrize("more", ["", ", swiglu_limit = 0.3", ", activation_beta = 1.0"])
def test_gates(more):
    attributes = f'k = 2, activation_type = "swiglu", swiglu_fusion = 1{more}'
    check(lambda: experts(attributes, gated=True))


def test_float16():
    check(lambda: experts("k = 2", dtype="float16"), tolerance=5e-3)


def test_8_bits_round_activations_if_that_is_allowed():
    check(lambda: experts("k = 2"), tolerance=0.03, bits=8, accuracy_level=4)
    check(lambda: experts("k = 2"), tolerance=0.03, bits=4, accuracy_level=4)


def why(model, target="ort-cpu", **recipe):
    plan = make_plan(model, resolve("int4", recipe), targets.get(target))
    return next(kept.reason for kept in plan.kept if kept.node == "moe")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: experts("k = 1", more=FC3), r"a weight of their own \(fc3\), which ONNX Runtime"),
        (
            lambda: experts('activation_type = "swiglu", swiglu_fusion = 2', gated=True),
            r"not interleaved in its first weight \(swiglu_fusion = 1\)",
        ),
        (lambda: experts('activation_type = "relu2"'), "the activation function relu2"),
        (lambda: experts("use_sparse_mixer = 1"), "a sparse mixer whose weights are not norm"),
        (lambda: experts("swiglu_limit_after_activation = 1"), "limits its gates behind"),
        (lambda: experts(hidden=72), "its 72 rows are no multiple of the block size 32"),
    ],
)
def test_what_stays_in_float_says_why(model, reason):
    assert re.search(reason, why(model()))


def test_other_reasons():
    assert "rounds activations to 8 bits" in why(experts(), weights={"bits": 8})
    assert "excluded by 'm*'" in why(experts(), exclude=["m*"])
    assert "TensorRT does not import com.microsoft.MoE" in why(experts(), "rtx-sm89")
    assert "not measured on CUDA" in why(experts(), "ort-cuda")
    computed = experts()
    node = computed.graph[-1]
    node.replace_input_with(4, None)
    assert "computed at run time" in why(computed)
    with pytest.raises(RecipeError, match="MoE is not among the ops"):
        onnxq.quantize(experts(), target="ort-cpu", preset="int4", recipe={"ops": ["Gather"]})


@pytest.mark.parametrize(
    "options", [{}, {"size_budget": "90kB"}, {"activation_dtype": "fp16"}, {"bits": "nf4"}]
)
def test_the_whole_way(tmp_path, options):
    model = experts('k = 2, activation_type = "silu", normalize_routing_weights = 1')
    result = onnxq.quantize(model, target="ort-cpu", preset="int4", exclude=["router"], **options)
    assert {d.node: d.action for d in result.report.decisions}["moe"] == "int4"
    result.save(tmp_path / "q.onnx")
    feeds = [random_feed(model, seed) for seed in range(3)]
    assert onnxq.compare(model, tmp_path / "q.onnx", feeds).min_sqnr_db > 13
    assert (tmp_path / "q.onnx").stat().st_size < 0.25 * result.report.weight_bytes["before"]


def test_with_data():
    model = experts("k = 2")
    feeds = [random_feed(model, seed) for seed in range(4)]
    result = onnxq.quantize(model, target="ort-cpu", preset="int4", calibration=feeds)
    (moe,) = (d for d in result.report.decisions if d.node == "moe")
    assert moe.action == "int4"
    assert "expected_sqnr_db" not in moe.numbers  # its second products are inside
