"""The observer `auto`: what it picks, beside an exhaustive search on the values themselves."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq import observers
from onnxq.observers._error import Spread, nearest
from onnxq.types import QuantSpec

AUTO, MINMAX = observers.get("auto"), observers.get("minmax")
SPECS = [QuantSpec("int8"), QuantSpec("uint8", symmetric=False)]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=str)


def observe(observer, values):
    return observer.update(observer.init(), np.asarray(values, np.float32).reshape(1, -1))


def error(values, params):
    scale, zero = float(params.scale), int(params.zero_point)
    least = -128 if params.zero_point.dtype == np.int8 else 0
    codes = np.clip(np.rint(values / scale) + zero, least, least + 255)
    return float((((codes - zero) * scale - values) ** 2).mean())


@cache
def heavy_tails():
    values = np.random.default_rng(0).normal(size=8_000_000).astype(np.float32)
    values[:2] = -12, 12
    return values


@every_spec
def test_clips_where_the_error_comes_down_to_a_half(spec):
    values = heavy_tails()
    state = observe(AUTO, values)
    found = AUTO.finish(state, spec)
    whole = MINMAX.finish(observe(MINMAX, values), spec)
    assert error(values, found) < 0.5 * error(values, whole)
    assert not AUTO.explain(state, spec).endswith("clips 0 %")
    least = observers.get("mse").finish(state, spec)
    # A value that is clipped counts for 16 that are rounded: fewer are clipped.
    assert least.scale < found.scale < whole.scale


@every_spec
def test_a_share_of_zero_clips_nothing(spec):
    never = observers.get("auto", {"share": 0.0})
    state = observe(never, heavy_tails())
    assert never.finish(state, spec).scale > AUTO.finish(state, spec).scale
    assert never.explain(state, spec) == "minmax, clips 0 %"


@every_spec
def test_clips_nothing_for_little_gain(spec):
    values = np.random.default_rng(0).uniform(-1, 1, 10_000)
    state = observe(AUTO, values)
    assert AUTO.finish(state, spec).scale == MINMAX.finish(observe(MINMAX, values), spec).scale
    assert AUTO.explain(state, spec) == "minmax, clips 0 %"


def test_each_end_is_searched_by_itself():
    values = np.random.default_rng(0).uniform(-5, 5, 8_000_000)
    values[values < 0] *= 0.1
    values[0] = -4  # a tail below, where there is little else
    spec, auto = QuantSpec("uint8", symmetric=False), observers.get("auto", {"share": 0.8})
    state = observe(auto, values)
    assert auto.explain(state, spec).startswith("auto, each end, clips 1.3e-05")
    found = error(values, auto.finish(state, spec))
    symmetric = observers.get("mse")
    assert found < error(values, symmetric.finish(observe(symmetric, values), spec))


def test_bins_too_coarse_for_a_format_clip_nothing():
    values = np.r_[np.full(100_000, 1e-4), 100.0]  # all but one in the bin beside zero
    state = observe(AUTO, values)
    for spec in SPECS:
        assert AUTO.finish(state, spec).scale == MINMAX.finish(observe(MINMAX, values), spec).scale


@given(
    values=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
    share=st.floats(0.2, 1),
)
def test_the_error_of_a_histogram_is_near_that_of_the_values(values, share):
    values = np.array(values, np.float32).astype(np.float64)
    state = observe(AUTO, values)
    width = float(np.ldexp(1.0, int(state["exponent"]) - 11))
    low, high = float(values.min()), float(values.max())
    spread = Spread.of(state["counts"], width, low, high)
    assert spread.weights.sum() == pytest.approx(values.size)
    exact = nearest(values, share * low, share * high, SPECS[0]) - values
    root = np.sqrt((exact**2).sum())
    found = np.sqrt(spread.error(share * low, share * high, SPECS[0]))
    # A value moves by less than a bin; where it is rounded the other way, its error stays its size.
    assert abs(found - root) <= 2 * width * np.sqrt(values.size) + 1e-9


def test_a_rescaled_tensor_keeps_its_whole_range():
    state = AUTO.rescale(observe(AUTO, heavy_tails()), np.array([0.5]))
    largest = np.abs(heavy_tails()).max()
    assert AUTO.finish(state, SPECS[0]).scale == pytest.approx(0.5 * largest / 127)
    assert AUTO.explain(state, SPECS[0]) == "minmax, clips 0 %"
