"""Weights in fp8: saturation, the error bound, and the scale of least squared error."""

import numpy as np
import pytest
from grids import dequantized
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.errors import NotFiniteError, RecipeError
from onnxq.passes.weights import get
from onnxq.types import PerAxis, PerBlock, PerTensor, QuantSpec

SPECS = [QuantSpec("fp8e4m3", each) for each in (PerTensor(), PerAxis(0), PerAxis(1), PerAxis(-1))]
MATRICES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9),
    elements=st.floats(-1e4, 1e4, width=32),
)


@pytest.mark.parametrize("algorithm", ["rtn", "mse"])
@pytest.mark.parametrize("spec", SPECS[:3], ids=str)
@given(weight=MATRICES)
def test_no_element_is_off_by_more_than_a_sixteenth(algorithm, spec, weight):
    quantized = get(algorithm)(weight, spec)
    found = dequantized(quantized)
    assert np.isfinite(found).all()
    smallest = 2.0**-10 * quantized.params.scale.max()
    assert (np.abs(found - weight) <= np.abs(weight) / 16 * (1 + 1e-5) + smallest).all()


@given(weight=MATRICES)
def test_the_scale_of_least_error_is_never_worse(weight):
    errors = [
        np.square(dequantized(get(algorithm)(weight, SPECS[1])) - weight).sum()
        for algorithm in ("mse", "rtn")
    ]
    assert errors[0] <= errors[1] * (1 + 1e-5) + 1e-30


def test_the_scale_of_least_error_is_better_on_normal_weights():
    weight = np.random.default_rng(0).normal(size=(64, 288)).astype(np.float32)
    errors = [
        np.square(dequantized(get(a)(weight, SPECS[1])) - weight).sum() for a in ("mse", "rtn")
    ]
    assert errors[0] < 0.95 * errors[1]


def test_the_largest_weight_becomes_448():
    weight = np.array([[1.0, -2.0], [0.0, 0.0]], np.float32)
    quantized = get("rtn")(weight, SPECS[1])
    assert quantized.codes.astype(np.float32).tolist() == [[224, -448], [0, 0]]
    assert quantized.params.scale.tolist() == [np.float32(2 / 448), 1]
    assert not quantized.params.zero_point.astype(np.float32).any()


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38])
def test_extreme_weights(value):
    quantized = get("mse")(np.full((4, 4), value, np.float32), SPECS[1])
    assert (quantized.params.scale >= np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(dequantized(quantized), value, rtol=1 / 16, atol=1e-40)


def test_refusals():
    weight = np.ones((4, 4), np.float32)
    with pytest.raises(NotFiniteError):
        get("rtn")(np.full((2, 2), np.nan, np.float32), SPECS[0])
    with pytest.raises(RecipeError, match="not fp8e4m3 symmetric block 2"):
        get("rtn")(weight, QuantSpec("fp8e4m3", PerBlock(0, 2)))
    with pytest.raises(RecipeError, match="not of fp8e4m3"):
        get("hqq")(weight, SPECS[0])
