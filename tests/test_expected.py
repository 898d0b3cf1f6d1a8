"""What a report expects of each op, beside what is measured on the same data."""

import numpy as np
import pytest
from graphs import compute, with_weights

import onnxq
from onnxq.errors import ModelError

GRAPH = """
    g (float[n, 64] x, float[64, 96] w1, float[300, 64] w2) => (float[n, 96] y, float[n, 300] z)
    {
        [product] y = MatMul(x, w1)
        [gemm] z = Gemm<transB = 1>(x, w2)
    }
"""


def data(count=4):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(64, 64)).astype(np.float32)
    return [{"x": rng.normal(size=(50, 64)).astype(np.float32) @ mixing} for _ in range(count)]


def expected(result):
    return {d.node: d.numbers.get("expected_sqnr_db") for d in result.report.decisions}


def test_it_is_what_is_measured():
    model = with_weights(GRAPH, 21)
    result = onnxq.quantize(model, target="ort-cpu", preset="int4", calibration=data())
    noise, signal = np.zeros(2), np.zeros(2)
    for feed in data():
        pairs = zip(compute(model, **feed), compute(result.model, **feed), strict=True)
        for index, (a, b) in enumerate(pairs):
            noise[index] += np.square(a - b).sum(dtype=np.float64)
            signal[index] += np.square(a).sum(dtype=np.float64)
    measured = 10 * np.log10(signal / noise)
    found = expected(result)
    assert found["product"] == pytest.approx(measured[0], abs=0.01)
    assert found["gemm"] == pytest.approx(measured[1], abs=0.5)  # of some of its columns


def test_without_data_nothing_is_said():
    result = onnxq.quantize(with_weights(GRAPH, 21), target="ort-cpu", preset="int4")
    assert set(expected(result).values()) == {None}


def test_nan_is_refused_by_name():
    model = with_weights(GRAPH, 21, w1=np.full((64, 96), np.nan))
    with pytest.raises(ModelError, match="'w1' holds NaN"):
        onnxq.quantize(model, target="ort-cpu", preset="int4", calibration=data())
