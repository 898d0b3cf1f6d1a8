"""Detection, page orientation and YOLOv8n: small files, and engines that run in int8."""

import data
import models
import numpy as np
import pytest

import onnxq
from onnxq import runtime

# The calibration feeds, the shapes of an engine, and the file's share of the float file allowed for
# each target: TensorRT keeps depthwise and thin convolutions in float.
MODELS = {
    "ppocr-det": (data.detection, {"x": "1x3x320x320:1x3x640x640:1x3x960x960"}, 0.40),
    "orientation": (data.orientation, {"x": "1x3x224x224"}, 0.30),
    "yolov8n": (data.yolo, {"images": "1x3x320x320"}, 0.30),
}


@pytest.fixture(scope="module", params=MODELS)
def vision(request):
    feeds, shapes, ratio = MODELS[request.param]
    model = models.path(request.param)
    data_and_ranges = {"stats": onnxq.calibrate(model, feeds), "calibration": feeds}
    return model, data_and_ranges, shapes, ratio


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_the_file_shrinks(vision, target, tmp_path):
    model, given, _, ratio = vision
    path = tmp_path / "int8.onnx"
    onnxq.quantize(model, preset="int8", target=target, **given).save(path)
    assert path.stat().st_size <= ratio * model.stat().st_size


def test_the_engine_runs_in_int8(vision, tmp_path):
    model, given, shapes, _ = vision
    result = onnxq.quantize(model, preset="int8", target="rtx-sm89", **given)
    built = onnxq.build(result.model, tmp_path / "int8", target="rtx-sm89", shapes=shapes)
    plain = onnxq.build(model, tmp_path / "float", target="rtx-sm89", shapes=shapes)
    summary = built.attestation.summary()
    assert summary["proven"] == summary["planned"] == result.report.counts()["int8"] > 10
    assert built.engine.stat().st_size <= 1.1 * plain.engine.stat().st_size


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_yolo_scores_keep_15_db(target):
    """Rows 0 to 3 of YOLO's one output are boxes, in pixels; the rest are scores, from 0 to 1."""
    model = models.path("yolov8n")
    result = onnxq.quantize(model, preset="int8", target=target, calibration=data.yolo)
    sessions = [runtime.session(model), runtime.session(result.model)]
    signal = noise = 0.0
    for feed in data.yolo_evaluation():
        expected, found = (
            session.run(None, feed)[0][:, 4:].astype(np.float64) for session in sessions
        )
        signal += float((expected**2).sum())
        noise += float(((found - expected) ** 2).sum())
    assert 10 * np.log10(signal / noise) >= 15


def test_orientation_still_knows_the_turns(tmp_path):
    model = models.path("orientation")
    result = onnxq.quantize(model, preset="int8", target="ort-cpu", calibration=data.orientation)
    sessions = [runtime.session(model), runtime.session(result.model)]
    right = np.zeros(2)
    pages = list(data.turned_pages(40, seed=3))
    for turns, feed in pages:
        right += [session.run(None, feed)[0].argmax() == turns for session in sessions]
    assert right[0] >= 30
    assert right[1] >= right[0] - 2
