"""What all algorithms that search a grid have in common."""

import ml_dtypes
import numpy as np
import pytest
from grids import dequantized, expanded
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq import formats
from onnxq.errors import NotFiniteError
from onnxq.passes.weights import get, hqq, kquant, mse, rtn
from onnxq.types import PerAxis, PerBlock, PerTensor, QuantSpec

NAMES = ["rtn", "mse", "kquant", "hqq", "auto"]
SPECS = [
    QuantSpec("int8", PerTensor()),
    QuantSpec("int8", PerAxis(0)),
    QuantSpec("uint8", PerAxis(1), symmetric=False),
    QuantSpec("int4", PerBlock(0, 4)),
    QuantSpec("uint4", PerBlock(1, 16), symmetric=False),
    QuantSpec("uint4", PerBlock(0, 4), symmetric=False, float_zero_point=True),
]
MATRICES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=9),
    elements=st.floats(-1e4, 1e4, width=32),
)


def squared(quantized, weight, importance=1.0):
    return float((importance * (dequantized(quantized) - weight) ** 2).sum())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", SPECS, ids=str)
@given(weight=MATRICES)
def test_codes_are_the_nearest_on_their_grid(name, spec, weight):
    quantized = get(name)(weight, spec)
    number_format = formats.get(spec.format)
    assert quantized.codes.shape == weight.shape
    assert quantized.codes.dtype == number_format.carrier
    scale, zero = (
        expanded(each, weight.shape, spec.granularity).astype(np.float64)
        for each in (quantized.params.scale, quantized.params.zero_point)
    )
    assert (scale > 0).all()
    lowest = number_format.qmin
    if spec.symmetric and not isinstance(spec.granularity, PerBlock):
        lowest = number_format.middle - number_format.qmax
    exact = np.clip(weight / scale + zero, lowest, number_format.qmax)
    assert (np.abs(quantized.codes - exact) <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38])
def test_blocks_of_one_extreme_value(name, spec, value):
    weight = np.full((8, 8), value, np.float32)
    quantized = get(name)(weight, spec)
    assert (quantized.params.scale >= np.finfo(np.float32).tiny).all()
    assert np.isfinite(quantized.params.scale).all()
    assert np.isfinite(quantized.params.zero_point).all()
    assert (np.abs(dequantized(quantized) - weight) <= quantized.params.scale.max() * 0.51).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_what_is_not_finite_is_refused(name, bad, dtype):
    weight = np.ones((40, 3), dtype)
    weight[37, 1] = bad
    for spec in (QuantSpec("int4", PerBlock(0, 16)), QuantSpec("int8", PerAxis(1))):
        with pytest.raises(NotFiniteError):
            get(name)(weight, spec)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_threads_and_panels_do_not_show(name, spec, monkeypatch):
    from onnxq.passes.weights import _blocks

    weight = np.random.default_rng(0).normal(size=(150, 70)).astype(np.float32)
    found = []
    for threads, panel in (("1", 1 << 16), ("3", 1 << 16), ("2", 512)):
        monkeypatch.setenv("ONNXQ_THREADS", threads)
        monkeypatch.setattr(_blocks, "_PANEL", panel)
        found.append(get(name)(weight, spec))
    for other in found[1:]:
        assert other.codes.tobytes() == found[0].codes.tobytes()
        assert other.params.scale.tobytes() == found[0].params.scale.tobytes()
        assert other.params.zero_point.tobytes() == found[0].params.zero_point.tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(96, 40), (70, 33), (3, 48, 20), (16, 1)])
def test_blocks_along_any_axis_are_the_same(name, shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    spec = QuantSpec("uint4", PerBlock(len(shape) - 2, 16), symmetric=False)
    turned = QuantSpec("uint4", PerBlock(len(shape) - 1, 16), symmetric=False)
    one, two = get(name)(weight, spec), get(name)(np.swapaxes(weight, -1, -2), turned)
    np.testing.assert_array_equal(one.codes, np.swapaxes(two.codes, -1, -2))
    np.testing.assert_array_equal(one.params.scale, np.swapaxes(two.params.scale, -1, -2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("axis", [0, 1])
def test_half_precision_is_read_exactly(name, dtype, axis):
    weight = np.random.default_rng(0).normal(size=(64, 48)).astype(dtype)
    weight[:4] *= np.array(2.0**-14, dtype)  # denormal in float16
    spec = QuantSpec("int4", PerBlock(axis, 16))
    one, two = get(name)(weight, spec), get(name)(weight.astype(np.float32), spec)
    np.testing.assert_array_equal(one.codes, two.codes)
    np.testing.assert_array_equal(one.params.scale, two.params.scale)


@pytest.mark.parametrize(
    ("dtype", "name"), [(np.float16, "float16"), (ml_dtypes.bfloat16, "bfloat16")]
)
@given(
    weight=hnp.arrays(
        np.float32,
        (16, 5),
        elements=st.floats(-1e4, 1e4, width=32) | st.floats(-(2**-20), 2**-20, width=32),
    )
)
def test_scales_are_rounded_to_the_type_that_stores_them(dtype, name, weight):
    exact = QuantSpec("uint4", PerBlock(0, 16), symmetric=False, float_zero_point=True)
    stored = QuantSpec("uint4", PerBlock(0, 16), False, True, scale_dtype=name)
    one, two = rtn.quantize(weight, exact).params, rtn.quantize(weight, stored).params
    expected = np.maximum(
        one.scale.astype(dtype).astype(np.float32), 2.0**-24 if dtype is np.float16 else 0
    )
    np.testing.assert_array_equal(two.scale, expected)
    np.testing.assert_array_equal(two.zero_point, one.zero_point.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("algorithm", [mse, kquant, hqq])
@pytest.mark.parametrize("spec", SPECS[3:], ids=str)
def test_normal_weights_gain(algorithm, spec):
    weight = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    spec = QuantSpec(spec.format, PerBlock(0, 32), spec.symmetric, spec.float_zero_point)
    assert squared(algorithm.quantize(weight, spec), weight) < 0.96 * squared(
        rtn.quantize(weight, spec), weight
    )


@pytest.mark.parametrize("algorithm", [mse, kquant, hqq])
@pytest.mark.parametrize("spec", SPECS[3:], ids=str)
def test_what_counts_more_is_hit_better(algorithm, spec):
    weight = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    spec = QuantSpec(spec.format, PerBlock(0, 32), spec.symmetric, spec.float_zero_point)
    importance = np.where(np.arange(256) % 8 == 0, 50, 1).astype(np.float32)
    blind = algorithm.quantize(weight, spec)
    weighted = algorithm.quantize(weight, spec, importance)
    column = importance[:, None]
    assert squared(weighted, weight, column) < 0.9 * squared(blind, weight, column)


def test_a_number_of_threads_that_is_none(monkeypatch):
    from onnxq.errors import RecipeError

    monkeypatch.setenv("ONNXQ_THREADS", "many")
    with pytest.raises(RecipeError, match=r"\$ONNXQ_THREADS is 'many'.*Set it to 1 or more"):
        rtn.quantize(np.ones((4, 4), np.float32), SPECS[0])
