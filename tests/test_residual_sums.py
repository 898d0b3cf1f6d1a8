"""Residual sums read codes unless the outputs are much the better for floats."""

import numpy as np
import pytest
from graphs import random_feed, with_weights

import onnxq

# The block reads channels that y leaves out; where these are large, codes ruin the others.
GRAPH = (
    "g (float[1, 32, 8, 8] x, float[32, 32, 1, 1] w1, float[32, 32, 1, 1] w2, float[1, 32, 1, 1] "
    "w3) => (float[1, 32, 8, 8] y) { [one] r = Conv(x, w1) [two] b = Conv(r, w2) "
    "[sum] s = Add(b, r) y = Mul(s, w3) }"
)


@pytest.fixture(scope="module")
def models():
    def model(peak):
        scale = np.r_[np.full(4, peak), np.ones(28)].reshape(32, 1, 1, 1)
        first = np.random.default_rng(0).normal(0, 0.2, (32, 32, 1, 1)) * scale
        second = np.random.default_rng(1).normal(0, 0.01 / peak, (32, 32, 1, 1))
        second[:, 4:] = 0
        kept = np.r_[np.zeros(4), np.ones(28)].reshape(1, 32, 1, 1)
        return with_weights(GRAPH, w1=first, w2=second, w3=kept)

    return {peak: model(peak) for peak in (1.0, 100.0)}


def sum_of(model, **options):
    feeds = [random_feed(model, seed) for seed in range(8)]
    recipe = {"activations": {"min_op_sqnr": None}}
    result = onnxq.quantize(
        model, preset="int8", target="rtx-sm89", calibration=feeds, recipe=recipe, **options
    )
    (decision,) = (d for d in result.report.decisions if d.node == "sum")
    return decision, result.report.output_sqnr_db


def test_codes_where_the_outputs_are_good(models):
    decision, found = sum_of(models[1.0])
    assert decision.action == "int8"
    assert found > 20


def test_floats_where_codes_would_ruin_the_outputs(models):
    decision, found = sum_of(models[100.0])
    assert decision.action == "float"
    assert decision.reason.startswith("reading codes, the residual sums cost a typical sample ")
    assert found > 20


def test_codes_if_nothing_is_recovered(models):
    decision, found = sum_of(models[100.0], recovery=False)
    assert decision.action == "int8"
    assert found < 20
