"""fp8 in its defaults keeps the accuracy of real models about as well as int8 does."""

import data
import judges
import models
import pytest

import onnxq

# The judge, the calibration data, and what may be lost against float.
MODELS = {
    "ppocr-rec": (judges.recognition, data.recognition, 0.02),
    "orientation": (judges.orientation, data.orientation, 0.0),
    "minilm": (judges.minilm, data.minilm, 0.01),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_task_is_done_as_well_as_in_float(name, tmp_path):
    judge, feeds, allowed = MODELS[name]
    model = models.path(name)
    result = onnxq.quantize(model, preset="fp8", target="rtx-sm89", calibration=feeds)
    result.save(tmp_path / "fp8.onnx")
    expected, found = judge(model), judge(tmp_path / "fp8.onnx")
    print(f"{name}: float {expected:.4f}, fp8 {found:.4f}")
    assert result.report.counts()["fp8"] > 10
    assert found >= expected - allowed
