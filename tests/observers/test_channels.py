"""absmax and moments: the algebra of their states beside numpy, and what they give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq import observers
from onnxq.errors import DataError, RecipeError
from onnxq.observers import moments
from onnxq.types import PerAxis, PerBlock, QuantSpec

ABSMAX = observers.get("absmax")
MOMENTS = [observers.get("moments"), observers.get("moments", {"full": True})]
FLOATS = st.floats(-1e6, 1e6, width=32)
ROWS = st.lists(st.tuples(FLOATS, FLOATS, FLOATS), max_size=5)
BATCHES = st.lists(
    ROWS.map(lambda rows: np.array(rows, np.float32).reshape(-1, 3).T), min_size=1, max_size=6
)
every = pytest.mark.parametrize("observer", [ABSMAX, *MOMENTS], ids=["absmax", "diagonal", "full"])
every_moments = pytest.mark.parametrize("observer", MOMENTS, ids=["diagonal", "full"])


def observe(observer, *arrays):
    state = observer.init()
    for array in arrays:
        state = observer.update(state, array)
    return state


def assert_same(observer, a, b, magnitude=0.0):
    """Bit for bit; sums to 1e-12 of the sum of the sizes of what is added."""
    for field in a:
        if observer is ABSMAX or field == "count":
            np.testing.assert_array_equal(a[field], b[field])
        else:
            np.testing.assert_allclose(a[field], b[field], rtol=1e-12, atol=1e-12 * magnitude)


def size_of(*batches):
    whole = np.abs(np.concatenate(batches, axis=1).astype(np.float64))
    return float((whole + whole**2).sum()) if whole.size else 0.0


@every
@given(a=BATCHES, b=BATCHES, c=BATCHES)
def test_merge_is_associative_and_commutative(observer, a, b, c):
    size = size_of(*a, *b, *c)
    a, b, c = (observe(observer, *each) for each in (a, b, c))
    merge = observer.merge
    assert_same(observer, merge(a, b), merge(b, a), size)
    assert_same(observer, merge(merge(a, b), c), merge(a, merge(b, c)), size)
    assert_same(observer, merge(a, observer.init()), a)


@every
@given(batches=BATCHES, random=st.randoms(use_true_random=False))
def test_batching_and_order_do_not_matter(observer, batches, random):
    whole = observe(observer, np.concatenate(batches, axis=1))
    assert_same(observer, observe(observer, *batches), whole, size_of(*batches))
    random.shuffle(batches)
    assert_same(observer, observe(observer, *batches), whole, size_of(*batches))


@every
def test_rescaling_is_what_observing_the_product_gives(observer):
    x = np.random.default_rng(0).normal(size=(3, 50))
    factors = np.array([2.0, 0.25, 3.0])
    product = observe(observer, x * factors[:, None])
    assert_same(observer, observer.rescale(observe(observer, x), factors), product, 1e3)


def test_absmax_per_tensor_and_per_channel():
    state = observe(ABSMAX, np.array([[1.0, -2.0], [0.5, 0.25], [0, 0]], np.float32))
    assert ABSMAX.finish(state, QuantSpec("int8")).scale == np.float32(2 / 127)
    each = ABSMAX.finish(state, QuantSpec("int8", PerAxis(1)))
    np.testing.assert_array_equal(each.scale, np.array([2 / 127, 0.5 / 127, 1], np.float32))
    assert each.scale.dtype == np.float32
    assert each.zero_point.tolist() == [0, 0, 0]
    for spec in (QuantSpec("int8", symmetric=False), QuantSpec("int8", PerBlock(0, 2))):
        with pytest.raises(RecipeError, match="'absmax' cannot give a scale for"):
            ABSMAX.finish(state, spec)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_are_those_of_numpy(dtype):
    x = np.random.default_rng(0).normal(size=(4, 5000)).astype(dtype)
    exact = x.astype(np.float64)
    diagonal, full = (observe(each, x.reshape(4, 50, 100)) for each in MOMENTS)
    np.testing.assert_allclose(moments.mean(diagonal), exact.mean(axis=1), rtol=1e-10)
    np.testing.assert_allclose(moments.second_moment(full), exact @ exact.T / 5000, rtol=1e-12)
    np.testing.assert_allclose(
        moments.second_moment(diagonal), np.diag(moments.second_moment(full)), rtol=1e-12
    )


@every_moments
def test_moments_give_no_range(observer):
    state = observe(observer, np.ones((2, 3)))
    for give in (observer.finish, observer.explain):
        with pytest.raises(RecipeError, match=r"'moments' cannot give a scale.*on average"):
            give(state, QuantSpec("int8"))
    with pytest.raises(DataError, match="saw no value"):
        moments.mean(observer.init())


@every
def test_another_number_of_channels(observer):
    with pytest.raises(DataError, match="saw 3 channels and then 2"):
        observe(observer, np.ones((3, 2)), np.ones((2, 3)))
