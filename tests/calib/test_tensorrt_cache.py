"""Calibration caches of TensorRT 10 and older become statistics."""

import struct

import numpy as np
import pytest
from graphs import with_weights

import onnxq
from onnxq.calib import tensorrt_cache
from onnxq.errors import DataError
from onnxq.statistics import import_tensorrt_cache
from onnxq.types import QuantSpec

GRAPH = (
    "g (float[4, 64] x, float[64, 64] w1, float[64, 8] w2) => (float[4, 8] y) "
    "{ [one] h = MatMul(x, w1) [two] y = MatMul(h, w2) }"
)


def write(path, scales, header="TRT-8601-EntropyCalibration2"):
    lines = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_scales_are_those_of_the_cache(tmp_path):
    cache = write(tmp_path / "c", {"x": 0.0125, "h:0": 0.5, "(Unnamed Layer* 3)_output": 2.0})
    found = tensorrt_cache.read(cache, ["x", "h:0", "y"], "abc")
    assert found.unknown == ["(Unnamed Layer* 3)_output"]
    assert found.missing == ["y"]
    for name, scale in (("x", 0.0125), ("h:0", 0.5)):
        params = found.store.params(name, QuantSpec("int8"))
        assert params.scale == np.float32(scale)
        assert params.zero_point == 0


def test_a_real_line(tmp_path):
    (tmp_path / "c").write_text("TRT-8601-MinMaxCalibration\nimages: 3c010a14\n")
    store = tensorrt_cache.read(tmp_path / "c", ["images"], "abc").store
    assert store.params("images", QuantSpec("int8")).scale == pytest.approx(0.00787594)


def test_a_model_is_quantized_with_it(tmp_path):
    model = with_weights(GRAPH)
    cache = write(tmp_path / "c", {"x": 0.03, "other": 1.0})
    imported = import_tensorrt_cache(model, cache)
    assert (imported.unknown, imported.missing) == (["other"], ["h", "y"])
    report = onnxq.quantize(model, preset="int8", target="rtx-sm89", stats=imported.store).report
    decisions = {decision.node: decision for decision in report.decisions}
    assert decisions["one"].numbers["input_scale"] == pytest.approx(0.03)
    assert decisions["two"].reason == "no calibration sample tells the range of 'h'"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("", "cannot be read"),
        ("hello\nx: 3c010a14\n", "first line is 'hello'"),
        ("TRT-8601-EntropyCalibration2\n", "holds no tensor"),
        ("TRT-8601-EntropyCalibration2\nx: 3c01\n", "Line 2 of .* is 'x: 3c01'"),
        ("TRT-8601-EntropyCalibration2\nx: 7f800000\n", "has the scale inf"),
        ("TRT-8601-EntropyCalibration2\nx: 00000000\n", "has the scale 0.0"),
        ("TRT-8601-EntropyCalibration2\nz: 3c010a14\n", "None of the 1 tensors .* example 'z'"),
    ],
)
def test_what_is_no_cache(tmp_path, content, says):
    if content is not None:
        (tmp_path / "c").write_text(content)
    with pytest.raises(DataError, match=says):
        tensorrt_cache.read(tmp_path / "c", ["x"], "abc")
