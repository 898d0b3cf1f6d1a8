"""MinMax: the algebra of its state, and the scales that follow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq import formats, observers
from onnxq.errors import DataError, RecipeError
from onnxq.observers.minmax import MinMax
from onnxq.types import PerAxis, QuantSpec

MINMAX = MinMax()
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
BATCHES = st.lists(
    st.lists(FLOATS, max_size=5).map(lambda v: np.array(v, np.float32)), min_size=1, max_size=6
)
SPECS = [
    QuantSpec("int8"),
    QuantSpec("uint8"),
    QuantSpec("int8", symmetric=False),
    QuantSpec("uint8", symmetric=False),
    QuantSpec("int4", symmetric=False),
]


def observe(*arrays):
    """The state after one-channel arrays."""
    state = MINMAX.init()
    for array in arrays:
        state = MINMAX.update(state, array.reshape(1, -1))
    return state


def bits(state):
    return {field: (a.dtype, a.shape, a.tobytes()) for field, a in state.items()}


@given(BATCHES, BATCHES, BATCHES)
def test_merge_is_associative_and_commutative(a, b, c):
    a, b, c = observe(*a), observe(*b), observe(*c)
    assert bits(MINMAX.merge(a, b)) == bits(MINMAX.merge(b, a))
    left = MINMAX.merge(MINMAX.merge(a, b), c)
    assert bits(left) == bits(MINMAX.merge(a, MINMAX.merge(b, c)))
    assert bits(MINMAX.merge(a, MINMAX.init())) == bits(a)


@given(BATCHES, st.randoms(use_true_random=False))
def test_batching_and_order_do_not_matter(batches, random):
    whole = bits(observe(np.concatenate(batches)))
    assert bits(observe(*batches)) == whole
    random.shuffle(batches)
    assert bits(observe(*batches)) == whole
    half = len(batches) // 2
    merged = MINMAX.merge(observe(*batches[:half]), observe(*batches[half:]))
    assert bits(merged) == whole


def test_the_sign_of_zero_does_not_depend_on_order():
    positive, negative = np.array([0.0], np.float32), np.array([-0.0], np.float32)
    assert bits(observe(positive, negative)) == bits(observe(negative, positive))


@pytest.mark.parametrize("spec", SPECS, ids=str)
@given(values=st.lists(FLOATS, min_size=1, max_size=20))
def test_values_seen_come_back_within_half_a_step(spec, values):
    values = np.array(values, np.float32)
    params = MINMAX.finish(observe(values), spec)
    codes = formats.get(spec.format)
    scale, zero = float(params.scale), int(params.zero_point)
    assert np.isfinite(scale)
    assert scale >= np.finfo(np.float32).tiny
    assert codes.qmin <= zero <= codes.qmax
    q = np.clip(np.rint(values.astype(np.float64) / scale) + zero, codes.qmin, codes.qmax)
    error = np.abs((q - zero) * scale - values)
    # The scale is rounded to float32 (2^-24 relative), which 255 steps amplify.
    assert error.max() <= scale * (0.5 + 255 * 2**-23)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_zero_is_exact_when_the_range_leaves_it_out(spec):
    params = MINMAX.finish(observe(np.array([3.0, 7.0], np.float32)), spec)
    codes = formats.get(spec.format)
    assert codes.qmin <= params.zero_point <= codes.qmax
    assert params.scale.dtype == np.float32
    assert params.scale.shape == params.zero_point.shape == ()
    assert params.zero_point.dtype == codes.carrier


def test_known_scales():
    state = observe(np.array([-1.0, 2.54], np.float32))
    symmetric = MINMAX.finish(state, QuantSpec("int8"))
    assert symmetric.scale == np.float32(np.float32(2.54) / 127)
    assert symmetric.zero_point == 0
    assert MINMAX.finish(state, QuantSpec("uint8")).zero_point == 128
    asymmetric = MINMAX.finish(state, QuantSpec("uint8", symmetric=False))
    assert asymmetric.scale == pytest.approx(3.54 / 255)
    assert asymmetric.zero_point == 72  # 1 / (3.54 / 255) = 72.03
    assert MINMAX.finish(state, QuantSpec("int8", symmetric=False)).zero_point == 72 - 128


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_tensor_that_is_always_zero_gets_scale_one(spec):
    assert MINMAX.finish(observe(np.zeros(3, np.float32)), spec).scale == 1.0


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_scale_is_never_denormal(spec):
    tiny = np.array([np.finfo(np.float32).smallest_subnormal], np.float32)
    assert MINMAX.finish(observe(tiny), spec).scale == np.finfo(np.float32).tiny


def test_float16_extremes_are_exact():
    state = observe(np.array([-65504, 1], np.float16))
    assert state["min"] == -65504.0


def test_each_channel_has_a_range_and_the_tensor_that_of_all():
    state = MINMAX.update(MINMAX.init(), np.array([[[1, 2], [3, -4]], [[0.5, 0.1], [0, 0]]]))
    state = MINMAX.update(state, np.array([[5.0], [-0.5]]))  # of another size
    assert state["min"].tolist() == [-4, -0.5]
    assert state["max"].tolist() == [5, 0.5]
    assert MINMAX.finish(state, QuantSpec("int8")).scale == np.float32(5 / 127)


@given(
    st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
)
def test_rescaling_is_what_observing_the_product_would_give(rows, factors):
    values, factors = np.array(rows, np.float64).T, np.array(factors)
    rescaled = MINMAX.rescale(MINMAX.update(MINMAX.init(), values), factors)
    product = MINMAX.update(MINMAX.init(), values * factors[:, None])
    assert bits(rescaled) == bits(product)


def test_another_number_of_channels():
    state = MINMAX.update(MINMAX.init(), np.ones((3, 2)))
    with pytest.raises(DataError, match="saw 3 channels and then 2"):
        MINMAX.update(state, np.ones((2, 3)))


def test_nothing_seen():
    with pytest.raises(DataError, match="saw no value"):
        MINMAX.finish(observe(np.zeros((0, 4), np.float32)), QuantSpec("int8"))


def test_a_granularity_it_does_not_remember():
    with pytest.raises(RecipeError, match=r"per-channel\(axis 1\)"):
        MINMAX.finish(observe(np.ones(2, np.float32)), QuantSpec("int8", PerAxis(1)))


def test_found_by_name():
    assert observers.get("minmax") == MINMAX
    with pytest.raises(RecipeError, match="Did you mean 'minmax'"):
        observers.get("minmx")
    with pytest.raises(RecipeError, match=r"'minmax' cannot be made.*bins"):
        observers.get("minmax", {"bins": 3})
