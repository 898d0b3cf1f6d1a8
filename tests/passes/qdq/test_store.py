"""Stored weights and biases: integers that stand for the floats, and that no kernel overflows."""

import numpy as np
import pytest
from graphs import with_weights

from onnxq import targets
from onnxq.passes.edit import Editor
from onnxq.passes.plan import make_plan
from onnxq.passes.qdq.store import IntegerBias, store
from onnxq.recipe import resolve

GEMM = (
    "g (float[4, 64] x, float[64, 3] w, float[3] wb) => (float[4, 3] y) { [op] y = Gemm(x, w, wb) }"
)


def stored(graph=GEMM, bias=None, **weights):
    model = with_weights(graph, **weights)
    plan = make_plan(model, resolve("int8"), targets.get("ort-cpu"))
    (op,) = plan.ops
    values = store(
        Editor(model),
        model.graph,
        op,
        op.operands.weight.dtype,
        bias,
        transposed=op.operands.transposed,
    )
    return [v and v.const_value.numpy() for v in
            (values.codes, values.scale, values.bias, values.bias_scale)]  # fmt: skip


def test_codes_times_scale_is_the_weight():
    weight = np.random.default_rng(3).normal(size=(64, 3)).astype(np.float32)
    codes, scale, *bias = stored(w=weight)
    assert (codes.dtype, codes.shape, scale.shape) == (np.int8, (64, 3), (3,))
    assert bias == [None, None]
    assert (np.abs(codes * scale - weight) <= scale / 2 + 1e-7).all()
    assert np.abs(codes).max(axis=0).tolist() == [127] * 3


def test_a_transposed_weight_is_stored_the_way_it_is_read():
    graph = (
        "g (float[4, 64] x, float[3, 64] w) => (float[4, 3] y) "
        "{ t = Transpose(w) [op] y = MatMul(x, t) }"
    )
    weight = np.random.default_rng(3).normal(size=(3, 64)).astype(np.float32)
    codes, scale, *_ = stored(graph, w=weight)
    assert codes.shape == (64, 3)
    assert (np.abs(codes * scale - weight.T) <= scale / 2 + 1e-7).all()


def test_a_bias_is_a_multiple_of_the_product_of_scales():
    values = np.array([0.5, -20, 0], np.float32)
    _, scale, bias, bias_scale = stored(bias=IntegerBias("b", values, 0.02))
    assert bias.dtype == np.int32
    np.testing.assert_allclose(bias_scale, scale * np.float32(0.02))
    assert (np.abs(bias * bias_scale - values) <= bias_scale / 2 + 1e-6).all()


@pytest.mark.parametrize("large", [1e3, 1e6, -1e6])
def test_a_bias_that_would_overflow_raises_the_scale_of_its_channel_only(large):
    weight = np.full((64, 3), 1e-3, np.float32)
    weight[0] = [1e-3, 2e-3, 3e-3]
    values = np.array([large, 1e-3, 1e-3], np.float32)
    before, scale_before, *_ = stored(w=weight)
    codes, scale, bias, bias_scale = stored(w=weight, bias=IntegerBias("b", values, 1e-4))
    assert scale[0] > scale_before[0]
    np.testing.assert_array_equal(scale[1:], scale_before[1:])
    np.testing.assert_array_equal(codes[:, 1:], before[:, 1:])
    assert np.abs(bias).max() <= 2**30
    assert bias[0] * float(bias_scale[0]) == pytest.approx(large, rel=1e-6)
    assert (np.abs(codes * scale - weight) <= scale / 2 + scale_before / 2 + 1e-9).all()
