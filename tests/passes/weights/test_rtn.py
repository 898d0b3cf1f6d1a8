"""Round to nearest: the error bound, a plain reference, and tiles that do not show."""

import ml_dtypes
import numpy as np
import pytest
from grids import dequantized, expanded
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq import formats
from onnxq.errors import RecipeError
from onnxq.passes.weights import _blocks, get, rtn
from onnxq.types import PerAxis, PerBlock, PerTensor, QuantSpec

MATRICES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9),
    elements=st.floats(-1e4, 1e4, width=32),
)
SPECS = [
    QuantSpec("int8", PerTensor()),
    QuantSpec("uint8", PerTensor(), symmetric=False),
    QuantSpec("int8", PerAxis(0)),
    QuantSpec("int8", PerAxis(1)),
    QuantSpec("uint8", PerAxis(1), symmetric=False),
    QuantSpec("int4", PerBlock(0, 4)),
    QuantSpec("int4", PerBlock(1, 4)),
    QuantSpec("uint4", PerBlock(0, 4), symmetric=True),
    QuantSpec("uint4", PerBlock(0, 4), symmetric=False),
    QuantSpec("uint4", PerBlock(1, 16), symmetric=False),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@given(weight=MATRICES)
def test_no_element_is_off_by_more_than_half_a_step(spec, weight):
    quantized = rtn.quantize(weight, spec)
    codes = formats.get(spec.format)
    assert quantized.codes.shape == weight.shape
    assert quantized.codes.dtype == codes.carrier
    assert codes.qmin <= quantized.codes.min() <= quantized.codes.max() <= codes.qmax
    steps = expanded(quantized.params.scale, weight.shape, spec.granularity).astype(np.float64)
    # A zero point is rounded too, which may clip one end by half a step.
    allowed = 0.5 if spec.symmetric else 1.0
    assert (np.abs(dequantized(quantized) - weight) <= allowed * steps * (1 + 1e-5)).all()


def reference(weight, spec):
    """The formulas of the module docstring, on one block after the other."""
    codes = formats.get(spec.format)
    out = np.empty(weight.shape, codes.carrier)
    axis, size = spec.granularity.axis, spec.granularity.size
    moved, result = np.moveaxis(weight, axis, -1), np.moveaxis(out, axis, -1)
    for index in np.ndindex(moved.shape[:-1]):
        for start in range(0, moved.shape[-1], size):
            block = moved[index][start : start + size]
            low, high = min(block.min(), 0), max(block.max(), 0)
            if spec.symmetric:
                zero = codes.middle
                scale = np.float32(
                    max(high / np.float32(codes.qmax - zero), low / np.float32(codes.qmin - zero))
                )
            else:
                steps = np.float32(codes.qmax - codes.qmin)
                scale = np.float32(high / steps - low / steps)
            scale = np.float32(1) if scale == 0 else max(scale, np.finfo(np.float32).tiny)
            if not spec.symmetric:
                zero = np.clip(np.rint(codes.qmin - low / scale), codes.qmin, codes.qmax)
            found = np.clip(np.rint(block / scale) + zero, codes.qmin, codes.qmax)
            result[index][start : start + size] = found.astype(out.dtype)
    return out


@pytest.mark.parametrize("spec", [spec for spec in SPECS if isinstance(spec.granularity, PerBlock)])
@given(weight=MATRICES)
def test_blocks_are_those_of_a_plain_reference(spec, weight):
    np.testing.assert_array_equal(rtn.quantize(weight, spec).codes, reference(weight, spec))


@pytest.mark.parametrize("spec", [*SPECS, QuantSpec("int8", PerAxis(2))], ids=str)
def test_tiles_do_not_show(spec, monkeypatch):
    weight = np.random.default_rng(0).normal(size=(37, 11, 3)).astype(np.float32)
    whole = rtn.quantize(weight, spec)
    monkeypatch.setattr(_blocks, "_PANEL", 96)
    tiled = rtn.quantize(weight, spec)
    np.testing.assert_array_equal(tiled.codes, whole.codes)
    np.testing.assert_array_equal(tiled.params.scale, whole.params.scale)
    np.testing.assert_array_equal(tiled.params.zero_point, whole.params.zero_point)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types(dtype):
    weight = np.random.default_rng(0).normal(size=(64, 8)).astype(dtype)
    spec = QuantSpec("int4", PerBlock(0, 32))
    expected = rtn.quantize(weight.astype(np.float32), spec)
    np.testing.assert_array_equal(rtn.quantize(weight, spec).codes, expected.codes)


def test_codes_of_int8_per_channel_are_symmetric_and_those_of_blocks_use_both_ends():
    weight = np.array([[-1.0, 0.5], [0.2, 1.0]], np.float32)
    assert rtn.quantize(weight, QuantSpec("int8", PerAxis(1))).codes.min() == -127
    block = np.array([[-1.0], [0.5]], np.float32)
    assert rtn.quantize(block, QuantSpec("int4", PerBlock(0, 32))).codes[:, 0].tolist() == [-8, 4]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38])
def test_extreme_blocks(spec, value):
    weight = np.full((8, 8), value, np.float32)
    quantized = rtn.quantize(weight, spec)
    assert (quantized.params.scale >= np.finfo(np.float32).tiny).all()
    assert np.isfinite(quantized.params.scale).all()
    assert (np.abs(dequantized(quantized) - weight) <= quantized.params.scale.max() * 0.51).all()


def test_an_unknown_algorithm():
    with pytest.raises(RecipeError, match=r"no weight 'rnt'\. Did you mean 'rtn'"):
        get("rnt")
