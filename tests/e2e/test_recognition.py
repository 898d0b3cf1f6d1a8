"""PP-OCRv4 recognition from its published file: int8 keeps the accuracy, engines run in int8."""

import data
import models
import onnx_ir as ir
import pytest
from ocr_int8_engine import SHAPE, accuracy

import onnxq

LINES = 400


@pytest.fixture(scope="module")
def model():
    return models.path("ppocr-rec")


@pytest.fixture(scope="module")
def stats(model):
    return onnxq.calibrate(model, data.recognition)


@pytest.fixture(scope="module")
def float_accuracy(model):
    return accuracy(model, LINES)


@pytest.fixture(scope="module")
def quantize(model, stats):
    def to(target):
        return onnxq.quantize(
            model, preset="int8", target=target, stats=stats, calibration=data.recognition
        )

    return to


@pytest.fixture(scope="module", params=["ort-cpu", "rtx-sm89"])
def quantized(request, quantize, tmp_path_factory):
    path = tmp_path_factory.mktemp("recognition") / f"{request.param}.onnx"
    quantize(request.param).save(path)
    return path


def test_the_file_is_as_it_was_published(model):
    published = ir.load(model)
    assert published.opset_imports[""] == 12
    assert sum(node.op_type == "Constant" for node in published.graph) > 400


def test_line_accuracy_stays_within_4_points(quantized, float_accuracy):
    assert float_accuracy > 0.6
    assert accuracy(quantized, LINES) >= float_accuracy - 0.04


def test_the_file_shrinks(model, quantized):
    """TensorRT keeps more in float: depthwise convolutions, and what its int8 would harm."""
    most = 0.30 if quantized.stem == "ort-cpu" else 0.42
    assert quantized.stat().st_size < most * model.stat().st_size


def test_the_engine_runs_in_int8(model, quantize, tmp_path):
    result = quantize("rtx-sm89")
    shapes = {"x": SHAPE}
    built = onnxq.build(result.model, tmp_path / "int8", target="rtx-sm89", shapes=shapes)
    plain = onnxq.build(model, tmp_path / "float", target="rtx-sm89", shapes=shapes)
    summary = built.attestation.summary()
    assert summary["proven"] == summary["planned"] == result.report.counts()["int8"] > 20
    assert plain.attestation.ops == ()
    assert built.engine.stat().st_size <= 1.1 * plain.engine.stat().st_size
