"""fp8 from data to an engine, from Python and on the command line."""

import json

import data
import models
import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq.errors import DataError, TargetError
from onnxq.inspection import inspect

NET = """
g (float[1, 32, 8, 8] x, float[32, 32, 3, 3] w1, float[32] wb1, float[32, 32, 7, 7] w2,
   float[32, 64] w3, float[64] wb3)
=> (float[1, 64] y) {
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1, wb1)
    [relu] b = Relu(a)
    [large] c = Conv <pads = [3, 3, 3, 3]> (b, w2)
    [pool] d = GlobalAveragePool(c)
    [flat] e = Flatten(d)
    [head] y = Gemm(e, w3, wb3)
}
"""


@pytest.fixture
def net():
    return with_weights(NET, opset=18)


def test_from_data_to_a_proven_engine(net, tmp_path):
    feeds = [random_feed(net, seed) for seed in range(4)]
    stats = onnxq.calibrate(net, feeds)
    result = onnxq.quantize(net, preset="fp8", target="rtx-sm89", stats=stats)
    assert result.model.opset_imports[""] >= 19
    actions = {d.node: (d.action, d.reason) for d in result.report.decisions}
    assert [actions[node][0] for node in ("first", "head")] == ["fp8", "fp8"]
    assert "more than 32 elements" in actions["large"][1]
    quantize = next(n for n in result.model.graph if n.op_type == "QuantizeLinear")
    assert quantize.outputs[0].dtype == ir.DataType.FLOAT8E4M3FN
    largest = max(np.abs(feed["x"]).max() for feed in feeds)
    assert quantize.inputs[1].const_value.numpy() == pytest.approx(largest / 448)
    (expected,), (found,) = (compute(m, **feeds[0]) for m in (net, result.model))
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    built = onnxq.build(result.model, tmp_path / "engine", target="rtx-sm89")
    assert {op.planned for op in built.attestation.ops} == {"fp8"}
    assert built.attestation.summary() == {"planned": 2, "proven": 2, "float": 0, "unproven": 0}


def test_the_file_says_what_it_is(net, tmp_path):
    feeds = [random_feed(net)]
    path = tmp_path / "fp8.onnx"
    onnxq.quantize(net, preset="fp8", target="trt-sm90", calibration=feeds).save(path)
    told = inspect(path)
    assert told["preset"] == "fp8"
    assert "float8e4m3fn" in told["weights"]
    assert {op["precision"] for op in told["ops"]} == {"fp8", "float"}


def test_refusals(net):
    feeds = [random_feed(net)]
    for target, why in (
        ("ort-cpu", "no fp8 kernels"),
        ("rtx-sm86", "no fp8"),
        ("trt-sm80", "no fp8"),
    ):
        with pytest.raises(TargetError, match=why):
            onnxq.quantize(net, preset="fp8", target=target, calibration=feeds)
    with pytest.raises(DataError, match="Preset fp8 needs calibration data"):
        onnxq.quantize(net, preset="fp8", target="rtx-sm89")


def test_a_real_engine_runs_in_fp8(tmp_path):
    model = models.path("orientation")
    result = onnxq.quantize(model, preset="fp8", target="rtx-sm89", calibration=data.orientation)
    shapes = {"x": "1x3x224x224"}
    built = onnxq.build(result.model, tmp_path / "fp8", target="rtx-sm89", shapes=shapes)
    plain = onnxq.build(model, tmp_path / "float", target="rtx-sm89", shapes=shapes)
    summary = built.attestation.summary()
    assert summary["proven"] == summary["planned"] == result.report.counts()["fp8"] > 10
    assert built.engine.stat().st_size <= 1.1 * plain.engine.stat().st_size
    assert json.loads(built.manifest.read_text())["attestation"]["summary"] == summary
