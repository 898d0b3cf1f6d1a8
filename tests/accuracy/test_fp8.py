"""fp8 in its defaults does the tasks of real models no worse than int8, calibrated alike."""

from functools import partial
from itertools import islice

import data
import judges
import models
import pytest

import onnxq

# The judge, the calibration data, and what lies within noise: twice the standard error of the
# difference on so many lines; any page; what another seed of sentences changes.
MODELS = {
    "ppocr-rec": (partial(judges.recognition, count=50), data.recognition, 0.06),
    "orientation": (partial(judges.orientation, count=24), data.orientation, 0.0),
    "minilm": (partial(judges.minilm, count=30), data.minilm, 0.001),
}


@pytest.mark.parametrize("name", MODELS)
def test_fp8_is_no_worse_than_int8(name, tmp_path):
    judge, feeds, noise = MODELS[name]
    samples = list(islice(feeds(), 4))
    given = {"target": "rtx-sm89", "calibration": samples}
    given["stats"] = onnxq.calibrate(models.path(name), samples)
    scores, ops = {}, {}
    for preset in ("int8", "fp8"):
        result = onnxq.quantize(models.path(name), preset=preset, **given)
        result.save(tmp_path / "m.onnx")
        scores[preset] = judge(tmp_path / "m.onnx")
        ops[preset] = result.report.counts()[preset]
    print(f"{name}: " + ", ".join(f"{p} {s:.4f} ({ops[p]} ops)" for p, s in scores.items()))
    assert ops["fp8"] > 10
    assert scores["fp8"] >= scores["int8"] - noise
    assert scores["int8"] > 0.6
