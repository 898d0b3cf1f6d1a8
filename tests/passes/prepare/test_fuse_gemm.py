"""Products of matrices and what is added to them, as one op."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

from onnxq.passes.prepare import prepare
from onnxq.passes.prepare.fuse_gemm import FuseGemm

GRAPH = "g (float[3, 8] x, {more}float[8, 4] w, float{bias} wb) => (float[n] y) {{ {nodes} }}"


def fused(nodes, bias="[4]", more="", opset=17):
    """Whether anything changed, the op types then, and the model."""
    model = with_weights(GRAPH.format(nodes=nodes, bias=bias, more=more), opset)
    feed = random_feed(model)
    before = compute(model, **feed)
    modified = FuseGemm()(model).modified
    assert not FuseGemm()(model).modified
    for expected, found in zip(before, compute(model, **feed), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert found.shape == expected.shape
    return modified, [node.op_type for node in model.graph], model


@pytest.mark.parametrize("bias", ["[4]", "[1, 4]"])
@pytest.mark.parametrize("sum_", ["Add(p, wb)", "Add(wb, p)"])
def test_a_constant_row_is_taken_in(bias, sum_):
    _, types, model = fused(f"[mine] p = MatMul(x, w) y = {sum_}", bias)
    assert types == ["Gemm"]
    (gemm,) = model.graph
    assert gemm.name == "mine"
    assert gemm.outputs[0].name == "y"
    assert gemm.inputs[2].shape == (4,)


@pytest.mark.parametrize(
    ("nodes", "types"),
    [
        ("r = Relu(x) p = MatMul(r, w) s = Add(p, wb) y = Relu(s)", ["Relu", "Gemm", "Relu"]),
        ("p = MatMul(x, w) y = Add(p, z)", ["Gemm", "Add"]),
        ("t = Transpose(w) r = MatMul(z, t) y = Add(r, x)", ["Transpose", "Gemm", "Add"]),
        (
            "s = Shape(z) v = ReduceMean <axes = [1]> (z) e = Expand(v, s) r = Reshape(e, s) "
            "t = Transpose(w) p = MatMul(r, t) y = Add(p, x)",
            ["Shape", "ReduceMean", "Expand", "Reshape", "Transpose", "Gemm", "Add"],
        ),
    ],
)
def test_products_whose_dimensions_are_inferred(nodes, types):
    assert fused(nodes, more="float[3, 4] z, ")[1] == types


@pytest.mark.parametrize(
    ("nodes", "bias"),
    [
        ("p = MatMul(x, w) s = Add(p, wb) y = Mul(s, p)", "[4]"),
        ("p = MatMul(x, w) y = Mul(p, wb)", "[4]"),
        ("y = MatMul(x, w)", "[4]"),
        ("t = Transpose(x) p = MatMul(t, z) y = Add(p, wb)", "[4]"),
    ],
)
def test_what_stays_a_matmul(nodes, bias):
    types = fused(nodes, bias, more="float[3, 4] z, ")[1]
    assert "MatMul" in types
    assert "Gemm" not in types


@pytest.mark.parametrize("bias", ["[1]", "[3, 1]", "[3, 4]"])
def test_other_constants_are_added_behind(bias):
    assert fused("p = MatMul(x, w) y = Add(p, wb)", bias)[1] == ["Gemm", "Add"]


def test_products_of_more_dimensions_are_only_described():
    model = with_weights(
        "g (float[2, 3, 8] x, float[8, 4] w, float[4] wb) => (float[2, 3, 4] y) "
        "{ r = Relu(x) p = MatMul(r, w) y = Add(p, wb) }"
    )
    assert FuseGemm()(model).modified
    assert [node.op_type for node in model.graph] == ["Relu", "MatMul", "Add"]
    shape = model.graph[1].outputs[0].shape
    assert len(shape) == 3
    assert shape[2] == 4


def test_products_in_branches():
    model = with_weights(
        "g (bool c, float[3, 8] x, float[8, 4] w, float[4] wb) => (float[3, 4] y) { y = If (c) < "
        "then_branch = t () => (float[3, 4] a) { r = Relu(x) p = MatMul(r, w) a = Add(p, wb) }, "
        "else_branch = e () => (float[3, 4] b) { b = MatMul(x, w) } > }"
    )
    assert FuseGemm()(model).modified
    types = [node.op_type for node in model.graph.all_nodes()]
    assert types == ["If", "Relu", "Gemm", "MatMul"]


def test_a_batch_norm_behind_goes_into_the_gemm():
    nodes = "p = MatMul(x, w) s = Add(p, wb) y = BatchNormalization(s, wb, wb, wb, wv)"
    graph = GRAPH.format(nodes=nodes, bias="[4]", more="").replace("wb)", "wb, float[4] wv)", 1)
    model = with_weights(graph, wv=np.ones(4))
    feed = random_feed(model)
    before = compute(model, **feed)
    prepare(model)
    assert [node.op_type for node in model.graph] == ["Gemm"]
    np.testing.assert_allclose(compute(model, **feed), before, rtol=1e-4, atol=1e-6)
