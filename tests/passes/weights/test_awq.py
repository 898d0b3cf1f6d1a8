"""AWQ on arrays: the scales of an input, and codes that go by how large inputs are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moments import drawn, output_error

from onnxq.errors import NotFiniteError, RecipeError
from onnxq.passes.weights import awq, get, mse
from onnxq.types import PerAxis, PerBlock, QuantSpec

SPECS = [
    QuantSpec("int4", PerBlock(0, 16)),
    QuantSpec("uint4", PerBlock(0, 32), symmetric=False),
    QuantSpec("int4", PerBlock(1, 32)),
]


def uneven(seed, spec, length=96, lanes=40):
    """A weight, and inputs of which some channels are 30 times as large as others."""
    weight, moment = drawn(seed, spec, length, lanes)
    size = np.where(np.arange(length) % 8, 1, 30)
    return weight, moment * np.outer(size, size)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_scales_lessen_the_error_of_the_output(spec, seed):
    weight, moment = uneven(seed, spec)
    s = awq.strength([(weight, spec)], moment)
    assert s is not None
    assert np.log(s).mean() == pytest.approx(0, abs=1e-9)
    assert np.all(np.diff(s[np.argsort(np.diag(moment))]) >= 0)
    along = s[:, None] if spec.granularity.axis == 0 else s
    scaled, inner = (weight * along).astype(np.float32), moment / np.outer(s, s)
    before = output_error(mse.quantize(weight, spec), weight, moment)
    assert output_error(awq.quantize(scaled, spec, inner), scaled, inner) < before


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_inputs_that_are_always_zero_give_no_scales(spec):
    weight, moment = drawn(0, spec, 50, 33)
    assert awq.strength([(weight, spec)], np.zeros_like(moment)) is None


def test_what_cannot_be_quantized_is_refused():
    weight, moment = drawn(6, SPECS[0], 32, 8)
    with pytest.raises(RecipeError, match="algorithm awq takes matrices in blocks"):
        awq.quantize(weight, QuantSpec("int8", PerAxis(1)), moment)
    weight[3, 3] = np.nan
    with pytest.raises(NotFiniteError):
        get("awq", moment)(weight, SPECS[0])
