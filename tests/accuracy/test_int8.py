"""int8 in its defaults keeps the accuracy of every real model, for both kinds of targets."""

import itertools
import math
from functools import cache

import data
import judges
import models
import pytest

import onnxq

# The judge, the calibration data, what may be lost, and the share of the ops with weights that
# must not stay in float for accuracy.
MODELS = {
    "ppocr-rec": (lambda model: judges.recognition(model, 1000), data.recognition, 0.02),
    "ppocr-cls": (judges.angle, data.angle, 0.01),
    "ppocr-det": (judges.detection, data.detection, 0.02),
    "orientation": (judges.orientation, data.orientation, 0.0),
    "yolov8n": (judges.yolo, data.yolo, 0.08),
    "magika": (judges.magika, data.magika, 0.01),
    "silero-vad": (judges.silero, data.silero, 0.01),
    "minilm": (judges.minilm, data.minilm, 0.01),
}
MOSTLY_WEIGHTS = ("minilm",)  # half of which are a table of words


@cache
def float_score(name):
    return MODELS[name][0](models.path(name))


@cache
def stats(name):
    return onnxq.calibrate(models.path(name), MODELS[name][1])


@pytest.fixture(params=["ort-cpu", "rtx-sm89"])
def target(request):
    return request.param


@pytest.fixture
def quantized(request, target, tmp_path):
    name = request.param
    result = onnxq.quantize(
        models.path(name),
        preset="int8",
        target=target,
        stats=stats(name),
        calibration=MODELS[name][1],
    )
    result.save(tmp_path / "int8.onnx")
    return name, tmp_path / "int8.onnx", result.report


@pytest.mark.parametrize("quantized", MODELS, indirect=True)
def test_the_task_is_done_as_well_as_in_float(quantized):
    name, path, report = quantized
    judge, _, allowed = MODELS[name]
    expected, found = float_score(name), judge(path)
    print(f"{name} {report.target}: float {expected:.4f}, int8 {found:.4f}")
    assert expected > 0.6
    assert found >= expected - allowed
    if name in MOSTLY_WEIGHTS:
        assert path.stat().st_size <= 0.35 * models.path(name).stat().st_size
    harmed = [d for d in report.decisions if d.action == "float" and "sqnr_db" in d.numbers]
    recovered = [d for d in harmed if "of the noise of" in d.reason]
    planned = len(harmed) + report.counts()["int8"]
    assert len(recovered) <= math.ceil(0.1 * planned)
    assert len(harmed) - len(recovered) <= max(1, 0.05 * planned)


def test_some_lines_are_enough(target, tmp_path):
    few = list(itertools.islice(data.recognition(), 64))
    result = onnxq.quantize(models.path("ppocr-rec"), preset="int8", target=target, calibration=few)
    result.save(tmp_path / "int8.onnx")
    found = judges.recognition(tmp_path / "int8.onnx", 1000)
    assert found >= float_score("ppocr-rec") - 0.02


@pytest.mark.parametrize("quantized", ["yolov8n"], indirect=True)
def test_scores_keep_18_db(quantized):
    assert judges.yolo_scores_db(quantized[1]) >= 18
