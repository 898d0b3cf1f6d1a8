"""Preset int4 with data: a small model's outputs come out nearer to the float model's."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, with_weights

import onnxq

GRAPH = """
    g (float[n, 64] x, float[64, 96] w1, float[96, 48] w2, float[40, 96] w3)
        => (float[n, 48] y, float[n, 40] z)
    {
        hidden = MatMul(x, w1)
        positive = Relu(hidden)
        y = MatMul(positive, w2)
        z = Gemm<transB = 1>(positive, w3)
    }
"""


def data(count, seed):
    mixing = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(32, 64)).astype(np.float32) @ mixing} for _ in range(count)]


def noise(model, quantized):
    (feed,) = data(1, seed=99)
    pairs = zip(compute(model, **feed), compute(quantized, **feed), strict=True)
    return [float(np.square(a - b).mean() / np.square(a).mean()) for a, b in pairs]


@pytest.mark.parametrize("symmetric", [True, False])
def test_outputs_on_unseen_data_are_nearer_to_float(symmetric):
    model = with_weights(GRAPH, 21)
    given = {
        "target": "ort-cpu",
        "preset": "int4",
        "recipe": {"weights": {"symmetric": symmetric}},
    }
    plain = onnxq.quantize(model, **given)
    aware = onnxq.quantize(model, calibration=data(8, seed=1), **given)
    assert {d.reason for d in plain.report.decisions if d.action == "int4"} == {
        "weight-only for ort-cpu, auto"
    }
    assert {d.reason for d in aware.report.decisions if d.action == "int4"} == {
        "weight-only for ort-cpu, gptq"
    }
    assert aware.report.calibration["observer"] == "moments"
    assert aware.report.calibration["tensors"] == 2  # both products read one value
    for before, after in zip(noise(model, plain.model), noise(model, aware.model), strict=True):
        assert after < 0.7 * before


def test_a_weight_with_two_readers_is_stored_once_for_both():
    model = with_weights(
        """
        g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) {
            hidden = MatMul(x, w)
            y = MatMul(hidden, w)
        }
        """,
        21,
    )
    quantized = onnxq.quantize(
        model, target="ort-cpu", preset="int4", calibration=data(4, seed=1)
    ).model
    assert [node.op_type for node in quantized.graph] == ["MatMulNBits"] * 2
    codes = [v for v in quantized.graph.initializers.values() if v.name.endswith("codes")]
    assert len(codes) == 1
    assert isinstance(codes[0], ir.Value)
    plain = onnxq.quantize(model, target="ort-cpu", preset="int4").model
    assert noise(model, quantized)[0] < noise(model, plain)[0]
