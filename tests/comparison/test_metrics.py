"""The metrics against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.comparison import metrics

A = np.array([3.0, 4.0], np.float32)
ARRAYS = hnp.arrays(np.float32, 6, elements=st.floats(-1e6, 1e6, width=32))


def test_sqnr():
    assert metrics.sqnr_db(A, A + np.float32(0.5)) == pytest.approx(10 * math.log10(25 / 0.5))
    assert metrics.sqnr_db(A, 0 * A) == 0
    assert metrics.sqnr_db(A, A) == math.inf
    assert metrics.sqnr_db(0 * A, 0 * A) == math.inf
    assert metrics.sqnr_db(0 * A, A) == -math.inf


def test_sqnr_of_integers_does_not_wrap():
    assert metrics.sqnr_db(np.uint8([10]), np.uint8([20])) == 0


def test_cosine():
    assert metrics.cosine(A, 2 * A) == pytest.approx(1)
    assert metrics.cosine(A, -A) == pytest.approx(-1)
    assert metrics.cosine(A, np.array([4.0, -3.0])) == pytest.approx(0)
    assert metrics.cosine(0 * A, 0 * A) == 1
    assert metrics.cosine(0 * A, A) == 0
    assert metrics.cosine(np.float32([1e38, 0]), np.float32([1e38, 1e38])) == pytest.approx(
        0.5**0.5
    )


@given(ARRAYS, ARRAYS)
def test_cosine_is_a_cosine(a, b):
    assert -1 <= metrics.cosine(a, b) <= 1
    assert metrics.cosine(a, b) == pytest.approx(metrics.cosine(b, a))


def test_max_abs_error():
    assert metrics.max_abs_error(A, np.array([2.0, 6.0])) == 2
    assert metrics.max_abs_error(np.zeros(0), np.zeros(0)) == 0
    assert metrics.max_abs_error(np.uint8([0]), np.uint8([255])) == 255


def test_argmax_agreement():
    reference = np.array([[[1, 2, 0], [5, 1, 0]]], np.float32)
    candidate = np.array([[[1, 3, 0], [0, 1, 0]]], np.float32)
    assert metrics.argmax_agreement(reference, candidate) == (1, 2)
    candidate[0, 0, 1] = np.nan
    assert metrics.argmax_agreement(reference, candidate) == (0, 2)
    assert metrics.argmax_agreement(candidate, candidate) == (1, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_infinity_are_not_swallowed(bad, side):
    pair = [A, A]
    pair[side] = np.array([bad, 1], np.float32)
    assert math.isnan(metrics.sqnr_db(*pair))
    assert math.isnan(metrics.cosine(*pair))
    assert not math.isfinite(metrics.max_abs_error(*pair))
    assert [metrics.non_finite(a) for a in pair] == [1 - side, side]


def test_equal_infinities_are_reported_too():
    both = np.array([-np.inf, 1])
    assert math.isnan(metrics.sqnr_db(both, both))
    assert math.isnan(metrics.max_abs_error(both, both))
