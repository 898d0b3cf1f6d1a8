"""Mending a plan: outlier channels, parts of outputs that hide each other, limits that hold."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq.errors import RecipeError
from onnxq.recipe import resolve
from onnxq.recovery import _to_leave

LAYER = (
    "g (float[16, 64] x, float[64] wg, float[64, 64] w) => (float[16, 64] y) "
    "{ [scale] n = Mul(x, wg) [op] y = MatMul(n, w) }"
)
OUTLIERS = np.r_[np.full(4, 60.0), np.ones(60)]


def feeds(model):
    return [random_feed(model, seed) for seed in range(4)]


def report_of(model, target, **recipe):
    return onnxq.quantize(
        model, preset="int8", target=target, calibration=feeds(model), recipe=recipe
    )


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_outlier_channels_are_equalized(target):
    small = np.random.default_rng(0).normal(size=(64, 64))
    small[:4] *= 0.01  # the op hardly uses the channels that take all codes
    model = with_weights(LAYER, wg=OUTLIERS, w=small)
    result = report_of(model, target)
    (op,) = [d for d in result.report.decisions if d.node == "op"]
    assert op.action == "int8"
    assert op.numbers["equalized_alpha"] in (0.5, 0.75, 1.0)
    assert op.numbers["sqnr_db"] > 30
    feed = feeds(model)[0]
    (expected,), (found,) = compute(model, **feed), compute(result.model, **feed)
    assert 10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()) > 30


def test_what_is_good_is_left_alone():
    model = with_weights(LAYER, wg=np.ones(64))
    report = report_of(model, "rtx-sm89").report
    (op,) = [d for d in report.decisions if d.node == "op"]
    assert "equalized_alpha" not in op.numbers
    assert report.output_sqnr_db > 20


def test_integers_are_not_divided_between_two_kernels():
    """A division between two integer convolutions would part them."""
    model = with_weights(
        "g (float[2, 32, 8, 8] x, float[32, 32, 1, 1] w1, float[32, 32, 1, 1] w2) => "
        "(float[2, 32, 8, 8] y) { [one] h = Conv(x, w1) r = Relu(h) [two] y = Conv(r, w2) }",
        w1=np.random.default_rng(0).normal(size=(32, 32, 1, 1))
        * np.logspace(0, 2, 32).reshape(32, 1, 1, 1),
    )
    result = report_of(model, "ort-cpu", activations={"min_op_sqnr": None}, recovery=None)
    two = next(node for node in result.model.graph if node.name == "two")
    assert two.inputs[0].producer().inputs[0].producer().inputs[0].producer().op_type == "Relu"


def test_recovery_stops_at_its_limits():
    weights = {"wg": OUTLIERS, "w": np.random.default_rng(0).normal(size=(64, 64))}
    model = with_weights(
        LAYER.replace("y = MatMul(n, w)", "h = MatMul(n, w) [more] y = MatMul(h, w)"), **weights
    )
    for limits, most in (({"max_float_ops": 0}, 0), ({"min_sqnr": -50}, 0), ({"min_sqnr": 200}, 1)):
        report = report_of(model, "rtx-sm89", recovery=limits).report
        left = [d for d in report.decisions if "of the noise of" in d.reason]
        assert len(left) <= most
    report = report_of(model, "rtx-sm89", recovery=None).report
    assert report.output_sqnr_db == min(report.outputs.values())
    assert report.measured_on == "4 samples of the calibration data"


def test_options_are_a_part_of_the_recipe():
    assert resolve("int8").recovery.min_sqnr == 20
    assert resolve("int8", recovery={"min_sqnr": 30}).recovery.model_dump() == {
        "min_sqnr": 30, "max_float_ops": 0.1, "max_float_weights": 0.02,
    }  # fmt: skip
    assert resolve("int8", {"recovery": {"max_float_ops": 0.3}}).recovery.min_sqnr == 20
    assert resolve("int8", {"recovery": None}).recovery is None
    assert resolve("int8", recovery=False).recovery is None
    with pytest.raises(RecipeError, match=r"recovery\.max_float_ops"):
        resolve("int8", recovery={"max_float_ops": 2})


def test_ops_of_many_weights_are_quantized_all_the_same():
    """A file that does not shrink helps nobody, unless an output would be ruined."""
    found = {"large": 0.6, "small": 0.3, "tiny": 0.05}
    weights = {"large": 0.9, "small": 0.08, "tiny": 0.02}
    assert _to_leave(found, weights, 0.11, 3, 0.01) == ["small", "tiny"]
    assert _to_leave(found, weights, 1.1, 3, 0.01) == ["large", "small", "tiny"]
    assert _to_leave(found, weights, 1.0, 3, 0.5) == ["large"]
    assert _to_leave(found, weights, 1.0, 1, 0.01) == ["large"]
    assert _to_leave(found, weights, 0.01, 3, 0.01) == []
