"""The least error of the output on data: what it gains over the nearest codes, and when nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moments import decoded, drawn, output_error

from onnxq.errors import NotFiniteError, RecipeError
from onnxq.passes.weights import get, gptq, mse, needs_data
from onnxq.types import PerAxis, PerBlock, QuantSpec

SPECS = [
    QuantSpec("int4", PerBlock(0, 16)),
    QuantSpec("uint4", PerBlock(0, 32), symmetric=False),
    QuantSpec("uint4", PerBlock(1, 16), symmetric=False, float_zero_point=True),
    QuantSpec("int4", PerBlock(1, 32), scale_dtype="float16"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), length=st.integers(40, 170), lanes=st.integers(20, 70))
def test_no_worse_than_the_nearest_codes_on_correlated_data(spec, seed, length, lanes):
    weight, moment = drawn(seed, spec, length, lanes)
    found = gptq.quantize(weight, spec, moment)
    assert found.codes.shape == weight.shape
    nearest = mse.quantize(weight, spec)
    assert output_error(found, weight, moment) < output_error(nearest, weight, moment)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_worth_several_decibels_on_average(spec):
    gains = []
    for seed in range(4):
        weight, moment = drawn(seed, spec, 256, 64)
        before = output_error(mse.quantize(weight, spec), weight, moment)
        after = output_error(gptq.quantize(weight, spec, moment), weight, moment)
        gains.append(10 * np.log10(before / after))
    assert np.mean(gains) > 4


@pytest.mark.parametrize("moment", [np.eye(50), np.zeros((50, 50))], ids=["identity", "dead"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_inputs_that_are_independent_and_alike_leave_the_nearest_codes(spec, moment):
    weight, _ = drawn(0, spec, 50, 33)
    found, nearest = gptq.quantize(weight, spec, moment), mse.quantize(weight, spec)
    np.testing.assert_array_equal(found.codes, nearest.codes)
    np.testing.assert_array_equal(found.params.scale, nearest.params.scale)
    np.testing.assert_array_equal(found.params.zero_point, nearest.params.zero_point)


@pytest.mark.parametrize("grid", ["hqq", "kquant", "mse", "rtn"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_grids_of_other_algorithms(spec, grid):
    weight, _ = drawn(0, spec, 50, 33)
    alone, composed = get(grid)(weight, spec), get(f"gptq+{grid}", np.eye(50))(weight, spec)
    np.testing.assert_array_equal(composed.codes, alone.codes)
    np.testing.assert_array_equal(composed.params.scale, alone.params.scale)
    weight, moment = drawn(0, spec, 96, 33)
    composed = get(f"gptq+{grid}", moment)(weight, spec)
    assert output_error(composed, weight, moment) < output_error(
        get(grid)(weight, spec), weight, moment
    )


@pytest.mark.parametrize("name", ["gptq+awq", "gptq+gptq", "gptq+", "mse+hqq", "awq+mse"])
def test_what_cannot_be_composed(name):
    with pytest.raises(RecipeError, match=r"gptq alone takes the grids of another one: gptq\+hqq"):
        needs_data(name)


def test_inputs_that_are_always_zero_are_rounded_and_cost_the_others_nothing():
    spec = SPECS[1]
    weight, moment = drawn(3, spec, 96, 32)
    dead = slice(10, 20)
    moment[dead] = moment[:, dead] = 0
    found = gptq.quantize(weight, spec, moment)
    off = np.abs(decoded(found) - weight)[dead]
    assert off.max() < np.ptp(weight) / 10
    nearest = mse.quantize(weight, spec)
    assert output_error(found, weight, moment) < output_error(nearest, weight, moment)


def test_a_moment_that_is_not_positive_definite_is_damped_until_it_is():
    spec = SPECS[1]
    weight, moment = drawn(4, spec, 64, 32)
    moment = moment / np.diag(moment).mean()
    lowest = np.linalg.eigvalsh(moment)[0]
    moment -= np.eye(64) * (lowest + 0.3)
    assert np.linalg.eigvalsh(moment + 0.01 * np.eye(64))[0] < 0
    found = gptq.quantize(weight, spec, moment)
    assert np.abs(decoded(found) - weight).max() < np.ptp(weight)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_type_and_any_number_of_threads_gives_the_same(monkeypatch, dtype):
    spec = SPECS[1]
    weight, moment = drawn(5, spec, 200, 150)
    weight = weight.astype(np.float16).astype(dtype)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("ONNXQ_THREADS", threads)
        results.append(gptq.quantize(weight, spec, moment))
    monkeypatch.setenv("ONNXQ_THREADS", "1")
    results.append(gptq.quantize(weight.astype(np.float32), spec, moment))
    for other in results[1:]:
        np.testing.assert_array_equal(other.codes, results[0].codes)
        np.testing.assert_array_equal(other.params.scale, results[0].params.scale)


def test_what_cannot_be_quantized_is_refused():
    weight, moment = drawn(6, SPECS[0], 32, 8)
    with pytest.raises(RecipeError, match="needs second moments of activations"):
        get("gptq")
    with pytest.raises(RecipeError, match="matrices in blocks"):
        gptq.quantize(weight, QuantSpec("int8", PerAxis(1)), moment)
    weight[3, 3] = np.nan
    with pytest.raises(NotFiniteError):
        get("gptq", moment)(weight, SPECS[0])
