"""Products with scales found at run time: what ONNX Runtime computes and what it fuses."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from graphs import VNNI, compute, random_feed, with_weights
from grids import dequantized

from onnxq import io, targets
from onnxq.cpu import has_vnni
from onnxq.passes.lower import LowerOps
from onnxq.passes.plan import make_plan
from onnxq.passes.weights import rtn
from onnxq.recipe import resolve
from onnxq.types import PerAxis, PerBlock, QuantSpec

CPU = targets.get("ort-cpu")
HERE = CPU.on_cpu(has_vnni=has_vnni())

FORMS = {
    "matmul": ("float[3, 64] x, float[64, 24] w", "[op] y = MatMul(x, w)"),
    "vector": ("float[64] x, float[64, 24] w", "[op] y = MatMul(x, w)"),
    "batch": ("float[2, 3, 64] x, float[64, 24] w", "[op] y = MatMul(x, w)"),
    "transpose": ("float[3, 64] x, float[24, 64] w", "t = Transpose(w) [op] y = MatMul(x, t)"),
    "bias": (
        "float[3, 64] x, float[64, 24] w, float[24] wb",
        "[op] p = MatMul(x, w) y = Add(p, wb)",
    ),
    "gemm": ("float[3, 64] x, float[64, 24] w", "[op] y = Gemm(x, w)"),
    "gemm-bias": (
        "float[3, 64] x, float[24, 64] w, float[24] wb",
        "[op] y = Gemm <transB = 1> (x, w, wb)",
    ),
    "gemm-column-bias": (
        "float[3, 64] x, float[64, 24] w, float[3, 1] wb",
        "[op] y = Gemm(x, w, wb)",
    ),
}


def model_of(form, dtype="float"):
    inputs, nodes = FORMS[form]
    return with_weights(f"g ({inputs}) => (float[n] y) {{ {nodes} }}".replace("float", dtype))


def lowered(model, target=CPU):
    plan = make_plan(model, resolve("int8-dynamic"), target)
    assert LowerOps(plan)(model).modified == bool(plan.ops)
    return plan


def rounded_weight(value, spec):
    found = dequantized(rtn.quantize(value.const_value.numpy(), spec))
    return ir.tensor(found.astype(np.float32))


def rounded(x):
    """What DynamicQuantizeLinear makes of `x`, dequantized (ONNX, operators)."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return ((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


def fused(model, tmp_path):
    """The ops that ONNX Runtime runs, branches included, and how often."""
    path, optimized = tmp_path / "m.onnx", tmp_path / "optimized.onnx"
    io.save(model, path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in ir.from_proto(onnx.load(optimized)).graph.all_nodes())


@pytest.mark.parametrize("vnni", VNNI)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_computed_and_fused(form, vnni, tmp_path):
    reference, model = model_of(form), model_of(form)
    plan = lowered(model, CPU.on_cpu(has_vnni=vnni))
    (op,) = plan.ops
    assert op.weight.format == ("int8" if vnni else "int7")
    weight = reference.graph.initializers["w"]
    weight.const_value = rounded_weight(weight, op.weight)
    feed = random_feed(reference)
    (expected,) = compute(reference, x=rounded(feed["x"]))
    (found,) = compute(model, **feed)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    ops = fused(model, tmp_path)
    assert ops["DynamicQuantizeMatMul"] == 1
    assert not {"MatMul", "Gemm", "MatMulInteger", "Cast", "Mul"} & set(ops)


def test_weights_for_cpus_without_vnni_have_7_bits():
    model = model_of("matmul")
    lowered(model, CPU.on_cpu(has_vnni=False))
    codes = model.graph.initializers["w_codes"].const_value
    assert codes.dtype == ir.DataType.INT8
    # Two products with unsigned bytes must fit into 16 bits.
    assert np.abs(codes.numpy()).max() == 63
    assert 2 * 255 * 63 < 2**15 < 2 * 255 * 127


def test_what_several_products_read_is_quantized_once(tmp_path):
    model = with_weights(
        "g (float[3, 64] x, float[64, 24] w1, float[64, 24] w2) => (float[3, 24] y) "
        "{ [one] a = MatMul(x, w1) [two] b = MatMul(x, w2) y = Add(a, b) }"
    )
    lowered(model)
    ops = fused(model, tmp_path)
    assert ops == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2, "Add": 1}


def test_a_product_in_a_branch_and_in_a_loop(tmp_path):
    model = with_weights(
        "g (int64 n, bool c, float[3, 64] x, float[64, 64] w) => (float[3, 64] y, float[3, 64] z) {"
        " y = If (c) < then_branch = t () => (float[3, 64] a) { [then] a = MatMul(x, w) },"
        " else_branch = e () => (float[3, 64] b) { b = Neg(x) } >"
        " z = Loop (n, c, x) < body = l (int64 i, bool go, float[3, 64] h) =>"
        " (bool on, float[3, 64] next) { on = Identity(go) [inner] next = MatMul(h, w) } > }"
    )
    plan = lowered(model)
    assert {op.node for op in plan.ops} == {"then", "inner"}
    assert fused(model, tmp_path)["DynamicQuantizeMatMul"] == 2
    feed = {"n": np.int64(2), "c": np.True_, "x": np.ones((3, 64), np.float32)}
    y, z = compute(model, **{name: np.asarray(value) for name, value in feed.items()})
    assert np.abs(y).max() > 0
    assert np.abs(z).max() > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", ["matmul", "gemm-bias"])
def test_half_precision_is_quantized_in_float(form, dtype):
    model = model_of(form, dtype)
    reference, own = model_of(form), model_of(form)
    lowered(model, HERE)
    assert model.graph.outputs[0].dtype.name.lower() == dtype
    ops = Counter(node.op_type for node in model.graph)
    assert ops["Cast"] == 3
    assert ops["MatMulInteger"] == 1
    if dtype == "float16":
        feed = random_feed(own)
        (expected,) = compute(reference, **feed)
        (found,) = compute(model, x=feed["x"].astype(np.float16))
        assert found.dtype == np.float16
        assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


LSTM = """
g (float[7, 2, 16] x, float[{d}, 128, 16] w, float[{d}, 128, 32] wr, float[{d}, 256] wb,
   int32[2] wl, float[{d}, 2, 32] wh, float[{d}, 2, 32] wc, float[{d}, 96] wp)
=> (float[n] y, float[n] h, float[n] c) {{
    [op] y, h, c = LSTM <hidden_size = 32, direction = "{direction}"{more}> ({inputs})
}}
"""
INPUTS = {"plain": "x, w, wr", "bias": "x, w, wr, wb", "all": "x, w, wr, wb, wl, wh, wc, wp"}
LENGTHS = {"wl": np.array([7, 4])}


def lstm(inputs="all", direction="forward", more="", dtype="float"):
    d = 2 if direction == "bidirectional" else 1
    text = LSTM.format(d=d, direction=direction, inputs=INPUTS[inputs], more=more)
    return with_weights(text.replace("float", dtype), **LENGTHS)


@pytest.mark.parametrize("vnni", VNNI)
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm(direction, inputs, vnni):
    reference, model = (lstm(inputs, direction) for _ in range(2))
    plan = lowered(model, CPU.on_cpu(has_vnni=vnni))
    feed = random_feed(model)
    spec = plan.ops[0].weight
    for name in ("w", "wr"):
        value = reference.graph.initializers[name]
        of_rows = QuantSpec(spec.format, PerBlock(2, value.shape[2]))
        value.const_value = rounded_weight(value, of_rows)
    for found, expected in zip(compute(model, **feed), compute(reference, **feed), strict=True):
        assert found.shape == expected.shape
        assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    (node,) = model.graph
    assert (node.op_type, node.domain) == ("DynamicQuantizeLSTM", "com.microsoft")
    assert model.graph.initializers["w_codes"].const_value.dtype == ir.DataType.INT8


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lstm("plain", more=", layout = 1"), "whose batch comes first"),
        (lstm("plain", dtype="float16"), "computes in 16 bits"),
        (
            with_weights(
                "g (float[7, 2, 16] x, float[1, 96, 16] w, float[1, 96, 32] wr) => (float[n] y) "
                "{ [op] y = GRU <hidden_size = 32> (x, w, wr) }"
            ),
            "no GRU with weights of 8 bits",
        ),
        (
            with_weights(
                "g (float[7, 2, 16] x, float[1, 128, 16] w, float[1, 128, 32] r) => (float[n] y) "
                "{ [op] y = LSTM <hidden_size = 32> (x, w, r) }"
            ),
            "its weight is computed at run time",
        ),
        (
            with_weights(
                "g (float[1, 8, 8, 8] x, float[8, 8, 3, 3] w) => (float[n] y) "
                "{ [op] y = Conv(x, w) }"
            ),
            "3 to 4 times as long as the float Conv",
        ),
        (
            with_weights(
                "g (float[3, 64] x, float[64, 64] w) => (float[n] y) "
                "{ [op] y = Gemm <alpha = 0.5> (x, w) }"
            ),
            "alpha or beta",
        ),
    ],
)
def test_what_stays_in_float(model, why):
    plan = lowered(model)
    assert plan.ops == ()
    assert why in plan.kept[0].reason


def test_a_weight_of_two_ops_is_stored_once():
    model = with_weights(
        "g (float[3, 64] x, float[64, 64] w) => (float[3, 64] y) "
        "{ [one] h = MatMul(x, w) [two] y = MatMul(h, w) }"
    )
    plan = lowered(model)
    assert {op.weight for op in plan.ops} == {QuantSpec("int8", PerAxis(1))}
    assert [name for name in model.graph.initializers if name.startswith("w_")] == [
        "w_codes",
        "w_scale",
    ]
