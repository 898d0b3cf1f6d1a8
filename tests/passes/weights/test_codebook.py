"""Weights in nf4: the very codes of ONNX Runtime's quantizer, and scales of less error."""

import numpy as np
import pytest
from grids import expanded
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxruntime.capi._pybind_state import quantize_matmul_bnb4

from onnxq import formats
from onnxq.errors import NotFiniteError, RecipeError
from onnxq.passes.weights import get
from onnxq.types import PerBlock, QuantSpec

SPEC = QuantSpec("nf4", PerBlock(0, 16))
LEVELS = formats.get("nf4").values(np.arange(16))
MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.sampled_from([16, 32, 48]), st.integers(1, 9)),
    elements=st.floats(-1e4, 1e4, width=32),
)


def decoded(quantized):
    scale = expanded(quantized.params.scale, quantized.codes.shape, quantized.spec.granularity)
    return LEVELS[quantized.codes].astype(np.float64) * scale


def error(weight, quantized):
    return np.square(decoded(quantized) - weight).sum()


def normal(shape, dtype=np.float32):
    return (np.random.default_rng(0).standard_normal(shape) / 50).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_rtn_is_what_onnxruntime_does(dtype, size):
    weight = normal((512, 24), dtype)
    weight[:, 3] = 0
    spec = QuantSpec("nf4", PerBlock(0, size), scale_dtype=np.dtype(dtype).name)
    quantized = get("rtn")(weight, spec)
    packed, peaks = np.zeros(weight.size // 2, np.uint8), np.zeros(weight.size // size, dtype)
    quantize_matmul_bnb4(packed, weight.T.copy(), peaks, size, 1, 24, 512)
    codes = np.stack([packed >> 4, packed & 15], 1).reshape(24, 512)
    np.testing.assert_array_equal(quantized.codes.T, codes)
    expected = np.where(peaks == 0, 1, peaks).astype(np.float32)  # a scale is never 0
    np.testing.assert_array_equal(quantized.params.scale.T.reshape(-1), expected)
    assert not quantized.params.zero_point.any()


@given(weight=MATRICES)
def test_no_element_is_farther_than_half_way_to_the_next_level(weight):
    quantized = get("rtn")(weight, SPEC)
    scale = expanded(quantized.params.scale, weight.shape, SPEC.granularity)
    widest = np.diff(LEVELS).max() / 2
    assert (np.abs(decoded(quantized) - weight) <= scale * widest * (1 + 1e-5)).all()


@given(weight=MATRICES, algorithm=st.sampled_from(["mse", "auto"]))
def test_the_scale_of_least_error_is_never_worse(weight, algorithm):
    found, plain = (error(weight, get(a)(weight, SPEC)) for a in (algorithm, "rtn"))
    assert found <= plain * (1 + 1e-4) + 1e-30


@pytest.mark.parametrize(("size", "gain"), [(32, 0.85), (64, 0.9)])
def test_the_scale_of_least_error_is_better_on_normal_weights(size, gain):
    weight, spec = normal((512, 64)), QuantSpec("nf4", PerBlock(0, size))
    assert error(weight, get("mse")(weight, spec)) < gain * error(weight, get("rtn")(weight, spec))
    integers = get("auto")(weight, QuantSpec("int4", PerBlock(0, size)))
    scale = expanded(integers.params.scale, weight.shape, spec.granularity)
    of_integers = np.square(integers.codes * scale - weight).sum()
    assert error(weight, get("auto")(weight, spec)) < gain * of_integers


@pytest.mark.parametrize("algorithm", ["rtn", "mse"])
def test_which_way_a_weight_lies_does_not_matter(algorithm):
    weight = normal((70, 24))  # the last block is shorter
    one = get(algorithm)(weight, QuantSpec("nf4", PerBlock(0, 32)))
    other = get(algorithm)(weight.T.copy(), QuantSpec("nf4", PerBlock(1, 32)))
    np.testing.assert_array_equal(one.codes, other.codes.T)
    np.testing.assert_array_equal(one.params.scale, other.params.scale.T)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38])
def test_extreme_weights(value):
    quantized = get("mse")(np.full((16, 4), value, np.float32), SPEC)
    assert np.isfinite(decoded(quantized)).all()
    np.testing.assert_allclose(decoded(quantized), value, rtol=1e-5, atol=1e-37)


def test_what_is_not_finite_is_refused():
    weight = normal((16, 4))
    weight[3, 1] = np.inf
    with pytest.raises(NotFiniteError):
        get("auto")(weight, SPEC)


@pytest.mark.parametrize("algorithm", ["kquant", "hqq", "gptq"])
def test_other_algorithms_refuse_it_by_name(algorithm):
    with pytest.raises(RecipeError, match="not of nf4"):
        get(algorithm, np.eye(16, dtype=np.float32))(normal((16, 4)), SPEC)
