"""Rotations: orthogonal, and as even as can be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.passes.transforms.hadamard import rotation

SIZES = (16, 64, 384, 576, 640, 768, 896, 960, 1152, 1536)


@pytest.mark.parametrize("size", SIZES)
def test_each_channel_is_spread_over_all(size):
    found = rotation(size)
    matrix = np.kron(found.left, found.right)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(np.abs(matrix), size**-0.5)
    assert max(len(found.left), len(found.right)) <= 4 * size**0.5


def test_where_there_is_no_matrix_neighbours_share():
    found = rotation(43 * 16)
    assert found.size == 43 * 16
    matrix = np.kron(found.left, found.right)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(43 * 16), atol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 23 * 5, 47 * 8 // 8])
def test_there_may_be_none(size):
    assert size == 1 or rotation(size) is None


@given(st.sampled_from([12, 16, 20, 36, 48]), st.integers(1, 40), st.booleans())
def test_along_an_axis(size, others, first):
    rng = np.random.default_rng(size)
    found = rotation(size)
    array = rng.normal(size=(size, others) if first else (others, size))
    matrix = np.kron(found.left, found.right)
    expected = matrix.T @ array if first else array @ matrix
    np.testing.assert_allclose(found.turned(array, 0 if first else 1), expected, atol=1e-12)
    vector = array[:, 0] if first else array[0]
    np.testing.assert_allclose(found.turned(vector, 0), vector @ matrix, atol=1e-12)
    half = found.turned(array.astype(np.float16), 0 if first else 1)
    assert half.dtype == np.float32
