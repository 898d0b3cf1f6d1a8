"""Bounds and counts of compiled kernels beside numpy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxq.observers._tensors import bounds, counts, laid_out

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=20)
every_float = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])


@every_float
@given(data=st.data())
def test_bounds_are_those_of_numpy(dtype, data):
    values = data.draw(arrays.arrays(dtype, SHAPES))
    axis = data.draw(st.integers(0, values.ndim - 1))
    array = np.moveaxis(values, axis, 0)
    low, high = bounds(laid_out(array))
    others = tuple(range(1, array.ndim))
    finite = np.isfinite(array).all(axis=others)
    np.testing.assert_array_equal(np.isfinite(low) & np.isfinite(high), finite)
    np.testing.assert_array_equal(low[finite], array.min(axis=others)[finite])
    np.testing.assert_array_equal(high[finite], array.max(axis=others)[finite])
    assert not np.signbit(low[low == 0]).any()


@every_float
@given(data=st.data())
def test_counts_are_those_of_floor(dtype, data):
    floats = st.floats(-7.5, 7.5, width=16)
    values = data.draw(arrays.arrays(dtype, st.integers(1, 3000), elements=floats, fill=floats))
    found = counts(values.reshape(1, 1, -1), 4.0, 32)
    expected = np.bincount(np.floor(values.astype(np.float64) * 4).astype(int) + 32, minlength=64)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("exponent", [-149, -140, -20, 0, 9, 40, 127])
def test_counts_of_float32_are_exact_at_every_scale(exponent):
    least = np.float32(np.ldexp(1.0, -149))
    values = np.ldexp(np.array([-1, -0.5, 0, 0.5, 0.75, 1], np.float64), exponent)
    values = np.r_[values.astype(np.float32), -least, least]
    factor = np.ldexp(1.0, 4 - exponent)
    found = counts(values.reshape(1, 1, -1), factor, 32)
    expected = np.bincount(np.floor(values * factor).astype(int) + 32, minlength=64)
    np.testing.assert_array_equal(found, expected)


def test_memory_order_is_kept_without_a_copy():
    values = np.zeros((2, 3, 4, 5), np.float32)
    for axis in range(4):
        tensor = laid_out(np.moveaxis(values, axis, 0))
        assert np.shares_memory(tensor, values)
        assert tensor.shape[1] == values.shape[axis]
    assert laid_out(values[:, ::2]).shape == (1, 2, 40)
