"""Scales of least error of the output: what they gain over those of the weight alone."""

import numpy as np
import pytest
from grids import dequantized
from hypothesis import given, settings
from hypothesis import strategies as st
from moments import drawn, output_error

from onnxq.errors import NotFiniteError, RecipeError
from onnxq.passes.weights import get, mse, scale_estimation
from onnxq.types import PerAxis, PerBlock, QuantSpec

SPECS = [
    QuantSpec("int4", PerBlock(0, 16)),
    QuantSpec("uint4", PerBlock(0, 32), symmetric=False),
    QuantSpec("uint4", PerBlock(1, 16), symmetric=False, float_zero_point=True),
    QuantSpec("int4", PerBlock(1, 32), scale_dtype="float16"),
    QuantSpec("uint2", PerBlock(0, 32), symmetric=False),
    QuantSpec("int8", PerBlock(1, 64)),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), length=st.integers(40, 170), lanes=st.integers(20, 70))
def test_less_error_than_scales_of_the_weight_alone(spec, seed, length, lanes):
    weight, moment = drawn(seed, spec, length, lanes)
    found = scale_estimation.quantize(weight, spec, moment)
    assert found.codes.shape == weight.shape
    assert found.params.scale.min() > 0
    if spec.scale_dtype == "float16":
        np.testing.assert_array_equal(found.params.scale, found.params.scale.astype(np.float16))
    before = mse.quantize(weight, spec)
    assert output_error(found, weight, moment) < output_error(before, weight, moment)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_inputs_that_are_always_zero_change_nothing(spec):
    weight, moment = drawn(0, spec, 50, 33)
    found = scale_estimation.quantize(weight, spec, np.zeros_like(moment))
    assert np.isfinite(dequantized(found)).all()
    assert np.abs(dequantized(found) - weight).max() < np.ptp(weight)


def test_what_cannot_be_quantized_is_refused():
    weight, moment = drawn(6, SPECS[0], 32, 8)
    with pytest.raises(RecipeError, match="algorithm scale-estimation takes matrices in blocks"):
        scale_estimation.quantize(weight, QuantSpec("int8", PerAxis(1)), moment)
    weight[3, 3] = np.nan
    with pytest.raises(NotFiniteError):
        get("scale-estimation", moment)(weight, SPECS[0])
