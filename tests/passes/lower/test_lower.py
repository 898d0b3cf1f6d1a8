"""Weight-only forms: what they compute in ONNX Runtime is what the codes stand for."""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights
from onnx_ir.passes import common

from onnxq import runtime, targets
from onnxq.errors import TargetError
from onnxq.passes import lower
from onnxq.passes.lower import LowerOps
from onnxq.passes.plan import make_plan
from onnxq.passes.prepare import prepare
from onnxq.passes.weights import rtn
from onnxq.recipe import resolve
from onnxq.types import PerBlock, QuantSpec

FORMS = {
    "matmul": ("[op] y = MatMul(x, w)", "K, N"),
    "transpose": ("t = Transpose(w) [op] y = MatMul(x, t)", "N, K"),
    "gemm": ("[op] y = Gemm(x, w)", "K, N"),
    "gemm-transb": ("[op] y = Gemm <transB = 1> (x, w)", "N, K"),
    "gemm-bias": ("[op] y = Gemm(x, w, wb)", "K, N"),
    "gemm-row-bias": ("[op] y = Gemm(x, w, wr)", "K, N"),
    "gemm-scalar-bias": ("[op] y = Gemm(x, w, ws)", "K, N"),
    "gemm-transpose": ("t = Transpose(w) [op] y = Gemm <transB = 1> (x, t)", "K, N"),
}


def graph(form, rows, columns, dtype="float"):
    nodes, shape = FORMS[form]
    shape = shape.replace("K", str(rows)).replace("N", str(columns))
    text = (
        f"g (float[3, {rows}] x, float[{shape}] w, float[{columns}] wb, float[1, {columns}] wr, "
        f"float[1] ws) => (float[3, {columns}] y) {{ {nodes} }}"
    )
    return text.replace("float", dtype)


def lowered(model, target, **weights):
    plan = make_plan(
        model, resolve("int4", {"weights": {"algorithm": "rtn"} | weights}), targets.get(target)
    )
    assert LowerOps(plan)(model).modified
    return plan


def replaced_weight(model, plan):
    """The float weight replaced by what its codes stand for, in plain numpy."""
    (op,) = plan.ops
    weight = model.graph.initializers["w"].const_value.numpy().astype(np.float32)
    axis, size = op.weight.granularity.axis, op.weight.granularity.size
    quantized = rtn.quantize(weight, op.weight)
    scale, zero = (
        np.repeat(each, size, axis)[: weight.shape[0], : weight.shape[1]]
        for each in (quantized.params.scale, quantized.params.zero_point.astype(np.float32))
    )
    return (quantized.codes - zero) * scale


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rows", "block"), [(64, 32), (70, 32), (48, 16), (33, 16), (256, 128)])
def test_matmul_nbits(form, symmetric, rows, block):
    text = graph(form, rows, 24)
    float_model, model = with_weights(text), with_weights(text)
    feed = random_feed(model)
    plan = lowered(model, "ort-cpu", symmetric=symmetric, block_size=block)
    float_model.graph.initializers["w"].const_value = ir.tensor(replaced_weight(float_model, plan))
    np.testing.assert_allclose(
        compute(model, **feed)[0], compute(float_model, **feed)[0], rtol=2e-5, atol=2e-5
    )
    assert [node.op_type for node in model.graph].count("MatMulNBits") == 1
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize("form", ["matmul", "transpose"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", ["symmetric", "integer", "float"])
@pytest.mark.parametrize(("rows", "block"), [(96, 32), (70, 16), (200, 64), (64, None)])
def test_widths_and_zero_points_of_matmul_nbits(form, dtype, bits, kind, rows, block):
    text = graph(form, rows, 24, dtype)
    float_model, model = with_weights(text), with_weights(text)
    weights = {"symmetric": kind == "symmetric", "float_zero_points": kind == "float", "bits": bits}
    recipe = resolve("int4", {"weights": weights | {"block_size": block, "algorithm": "rtn"}})
    if (kind == "float" and bits == 8) or (block is None and bits == 2):
        if block is None and not (kind == "float" and bits == 8):
            (kept,) = [
                k for k in make_plan(model, recipe, targets.get("ort-cpu")).kept if k.node == "op"
            ]
            assert "no block as long as a column with 2-bit weights" in kept.reason
        else:
            with pytest.raises(TargetError, match="no float zero points of 8-bit"):
                make_plan(model, recipe, targets.get("ort-cpu"))
        return
    plan = make_plan(model, recipe, targets.get("ort-cpu"))
    LowerOps(plan)(model)
    exact = replaced_weight(float_model, plan)
    float_model.graph.initializers["w"].const_value = ir.tensor(
        exact.astype(float_model.graph.initializers["w"].dtype.numpy())
    )
    feed = random_feed(model)
    tolerance = 2e-5 if dtype == "float" else 5e-3
    np.testing.assert_allclose(
        compute(model, **feed)[0], compute(float_model, **feed)[0], rtol=tolerance, atol=tolerance
    )
    attributes = {k: a.value for k, a in model.graph[-1].attributes.items()}
    assert (attributes["bits"], attributes["block_size"]) == (bits, block or rows)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "block"), [(64, 32), (48, 16), (256, 128)])
def test_block_dequantize(form, rows, block):
    text = graph(form, rows, 24)
    float_model, model = with_weights(text, 21), with_weights(text, 21)
    feed = random_feed(model)
    plan = lowered(model, "rtx-sm89", block_size=block)
    float_model.graph.initializers["w"].const_value = ir.tensor(replaced_weight(float_model, plan))
    np.testing.assert_allclose(
        compute(model, **feed)[0], compute(float_model, **feed)[0], rtol=2e-5, atol=2e-5
    )
    common.RemoveUnusedNodesPass()(model)
    assert "w" not in model.graph.initializers
    onnx.checker.check_model(ir.to_proto(model))


def test_the_layout_of_matmul_nbits():
    weight = np.zeros((40, 2), np.float32)
    weight[:3, 0] = [-8, 7, 1]
    weight[0, 1] = -8
    model = with_weights(graph("matmul", 40, 2), w=weight)
    lowered(model, "ort-cpu", symmetric=True, block_size=32)
    node = model.graph[0]
    codes, scales = (value.const_value.numpy() for value in node.inputs[1:3])
    assert (codes.dtype, codes.shape) == (np.uint8, (2, 2, 16))
    assert codes[0, 0, :2].tolist() == [0xF0, 0x89]  # 0 and 15; 9 and 8, which is zero
    assert codes[1, 0, :2].tolist() == [0x80, 0x88]
    assert scales.tolist() == [[1, 1], [1, 1]]
    assert {k: a.value for k, a in node.attributes.items()} == {
        "K": 40, "N": 2, "bits": 4, "block_size": 32,
    }  # fmt: skip
    assert model.opset_imports["com.microsoft"] == 1


@pytest.mark.parametrize("level", [0, 1, 4])
def test_accuracy_levels(level):
    text = graph("matmul", 96, 40)
    exact, model = with_weights(text), with_weights(text)
    feed = random_feed(model)
    lowered(exact, "ort-cpu", block_size=32)
    lowered(model, "ort-cpu", block_size=32, accuracy_level=level)
    assert model.graph[0].attributes.get_int("accuracy_level", 0) == level
    # Kernels of 8 bits need weights in a layout of their own.
    (one,), (two,) = (runtime.session(each).run(None, feed) for each in (exact, model))
    off = np.abs(one - two).max() / np.abs(one).max()
    assert 1e-5 < off < 2e-2 if level == 4 else off < 1e-6


@pytest.mark.parametrize("target", ["ort-cuda", "rtx-sm89"])
def test_accuracy_levels_are_for_targets_that_have_them(target):
    recipe = resolve("int4", {"weights": {"accuracy_level": 4}})
    with pytest.raises(TargetError, match="no choice of what products compute in"):
        make_plan(with_weights(graph("matmul", 64, 40)), recipe, targets.get(target))


def test_zero_points_of_an_odd_number_of_blocks():
    model = with_weights(graph("matmul", 96, 5))
    lowered(model, "ort-cpu", symmetric=False, block_size=32)
    assert model.graph[0].inputs[3].const_value.shape.numpy() == (5, 2)


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_float16_keeps_its_type(target):
    text = graph("matmul", 64, 32, "float16")
    model = with_weights(text, 21)
    lowered(model, target)
    scale = next(v for n, v in model.graph.initializers.items() if "scale" in n)
    assert scale.dtype == ir.DataType.FLOAT16
    (found,) = compute(model, **random_feed(model))
    (expected,) = compute(with_weights(text, 21), **random_feed(model))
    assert found.dtype == np.float16
    assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()


SHARED = (
    "g (float[3, 64] x, float[64, 64] w) => (float[3, 64] y) "
    "{ [one] h = MatMul(x, w) [two] y = MatMul(h, w) }"
)


def test_a_weight_of_two_ops_is_stored_once():
    model = with_weights(SHARED)
    lowered(model, "ort-cpu")
    first, second = model.graph
    assert list(first.inputs)[1:] == list(second.inputs)[1:]
    assert "w" in model.graph.initializers
    prepare(model)
    assert sum(name.startswith("w") for name in model.graph.initializers) == 3


def test_a_weight_with_two_specs_is_stored_twice():
    model = with_weights(SHARED)
    rules = [{"match": "two", "weights": {"block_size": 16}}]
    plan = make_plan(model, resolve("int4", {"rules": rules}), targets.get("ort-cpu"))
    LowerOps(plan)(model)
    first, second = model.graph
    assert first.inputs[1] is not second.inputs[1]


def test_a_transpose_that_others_read_is_not_quantized_under_them():
    text = (
        "g (float[3, 64] x, float[64, 64] w) => (float[3, 64] y, float[64, 64] z) "
        "{ t = Transpose(w) [op] y = MatMul(x, t) z = Neg(t) }"
    )
    model = with_weights(text, 21)
    # The table says no: the form itself must not change what others read, all the same.
    target = targets.get("rtx-sm89")
    shared = dataclasses.replace(target.weight_only(), shared_weights=True)
    plan = make_plan(model, resolve("int4"), dataclasses.replace(target, int4=shared))
    LowerOps(plan)(model)
    feed = random_feed(model)
    y, z = compute(model, **feed)
    expected_y, expected_z = compute(with_weights(text, 21), **feed)
    np.testing.assert_array_equal(z, expected_z)
    assert not np.array_equal(y, expected_y)


def test_a_plan_of_nothing_modifies_nothing():
    model = with_weights(SHARED)
    plan = make_plan(model, resolve("int4", exclude=("*",)), targets.get("ort-cpu"))
    assert not LowerOps(plan)(model).modified


def test_opsets_and_unknown_forms():
    assert lower.opset("matmul-nbits") == 13
    assert lower.opset("block-dequantize") == 21
    with pytest.raises(TargetError, match="no lower 'matmul'"):
        lower.opset("matmul")


def test_the_spec_says_what_blocks_are_along():
    assert str(QuantSpec("int4", PerBlock(0, 32))) == "int4 symmetric block 32(axis 0)"
