"""Clipping is judged by the outputs: rare large values may be noise, or all that matters."""

import numpy as np
import pytest
from graphs import with_weights

import onnxq

PRODUCT = "g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) { [op] y = MatMul(x, w) }"
OUTLIERS_ONLY = (
    "g (float[n, 64] x, float[64, 64] w, float w8) => (float[n, 64] y) "
    "{ [op] h = MatMul(x, w) s = Sub(h, w8) y = Relu(s) }"
)


def feeds(outliers, count=8):
    """Values from -4 to 4, and in the samples numbered one of 10 to 12."""
    generator = np.random.default_rng(0)
    for index in range(count):
        x = generator.uniform(-4, 4, size=(8192, 64)).astype(np.float32)
        if index in outliers:
            x[0, 0] = generator.uniform(10, 12)
        yield {"x": x}


def report_of(model, outliers, **recipe):
    recipe.setdefault("recovery", {"min_sqnr": 60, "max_float_ops": 0})
    samples = list(feeds(outliers))
    recipe = {"activations": {"min_op_sqnr": None}} | recipe
    return onnxq.quantize(
        model, preset="int8", target="rtx-sm89", calibration=samples, recipe=recipe
    ).report


@pytest.fixture(scope="module")
def product():
    return with_weights(PRODUCT, w=np.random.default_rng(1).normal(size=(64, 64)))


def range_of(report):
    (op,) = (each for each in report.decisions if each.node == "op")
    return op.numbers["range"]


def test_what_the_outputs_do_not_need_is_clipped(product):
    found = report_of(product, {0})
    whole = report_of(product, {0}, activations={"observer": "minmax", "min_op_sqnr": None})
    assert found.calibration["settings"] == {"share": 0.8}
    assert found.calibration["clips"].startswith("where a tensor's error falls by it")
    assert range_of(found).startswith("auto, clips ")
    assert found.output_sqnr_db > whole.output_sqnr_db + 1
    assert whole.calibration["clips"] == "as the observer minmax says"
    assert range_of(whole) == "minmax, clips 0 %"


def test_what_the_outputs_are_made_of_is_not_clipped():
    model = with_weights(OUTLIERS_ONLY, w=np.eye(64), w8=np.array(8.0))
    report = report_of(model, {0, 1})
    assert report.calibration["clips"].startswith("nothing: the outputs have ")
    assert report.calibration["settings"] == {"share": 0.0}
    assert range_of(report) == "minmax, clips 0 %"


def test_good_outputs_are_left_alone(product):
    report = report_of(product, {0}, recovery={"min_sqnr": 20})
    assert report.calibration["clips"] == "nothing: the outputs are good enough without"


def test_where_no_error_falls_nothing_is_measured(product):
    report = report_of(product, set())
    assert report.calibration["clips"] == "nothing: no tensor's error would fall by it"


def test_without_data_the_observer_decides_by_itself(product):
    stats = onnxq.calibrate(product, list(feeds({0})))
    report = onnxq.quantize(product, preset="int8", target="rtx-sm89", stats=stats).report
    assert report.calibration["settings"] == {"share": 0.5}
    assert "clips" not in report.calibration
    assert range_of(report).startswith(("auto, clips ", "minmax, clips 0 %"))
