"""Observers that clip: the algebra of their counts, and plain references for what they choose."""

import re

import numpy as np
import pytest
from graphs import random_feed, with_weights
from hypothesis import given
from hypothesis import strategies as st

import onnxq
from onnxq import observers, registry
from onnxq.errors import DataError, RecipeError
from onnxq.observers._histogram import SIDE, magnitudes, width
from onnxq.observers.entropy import divergence
from onnxq.types import PerAxis, QuantSpec

NAMES = ["entropy", "mse", "percentile"]
COUNTING = [*NAMES, "auto"]
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
BATCHES = st.lists(
    st.lists(FLOATS, max_size=5).map(lambda v: np.array(v, np.float32).reshape(1, -1)),
    min_size=1,
    max_size=6,
)
algebra = pytest.mark.parametrize(
    "observer", [observers.get(name) for name in COUNTING], ids=COUNTING
)
every = pytest.mark.parametrize("observer", [observers.get(name) for name in NAMES], ids=NAMES)


def observe(observer, *arrays):
    state = observer.init()
    for array in arrays:
        state = observer.update(state, array)
    return state


def bits(state):
    return {field: (a.dtype, a.shape, a.tobytes()) for field, a in state.items()}


def test_every_observer_is_tested():
    assert {*COUNTING, "minmax", "absmax", "moments"} == set(registry.names("onnxq.observers"))


@algebra
@given(a=BATCHES, b=BATCHES, c=BATCHES)
def test_merge_is_associative_and_commutative(observer, a, b, c):
    a, b, c = (observe(observer, *each) for each in (a, b, c))
    merge = observer.merge
    assert bits(merge(a, b)) == bits(merge(b, a))
    assert bits(merge(merge(a, b), c)) == bits(merge(a, merge(b, c)))
    assert bits(merge(a, observer.init())) == bits(a)


@algebra
@given(batches=BATCHES, random=st.randoms(use_true_random=False))
def test_batching_and_order_do_not_matter(observer, batches, random):
    whole = bits(observe(observer, np.concatenate(batches, axis=1)))
    assert bits(observe(observer, *batches)) == whole
    random.shuffle(batches)
    assert bits(observe(observer, *batches)) == whole


@given(st.lists(FLOATS, min_size=1, max_size=50))
def test_every_value_is_counted_in_its_bin(values):
    values = np.array(values, np.float32)
    state = observe(observers.get("mse"), values.reshape(1, -1))
    assert state["counts"].sum() == values.size
    edges = (np.arange(-SIDE, SIDE + 1)) * width(state)
    expected, _ = np.histogram(values.astype(np.float64), edges)
    np.testing.assert_array_equal(state["counts"][: 2 * SIDE], expected)


def normal_with_outliers(count=20000):
    return np.random.default_rng(0).standard_t(3, size=count).astype(np.float32)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    st.floats(1, 100),
)
def test_percentile_agrees_with_sorting(values, percentile):
    observer = observers.get("percentile", {"percentile": percentile})
    values = np.array(values, np.float32)
    state = observe(observer, values.reshape(1, -1))
    largest = float(np.abs(values).max())
    found = observer.choose(state["counts"], width(state), largest, QuantSpec("int8"))
    ordered = np.sort(np.abs(values.astype(np.float64)))
    index = int(np.ceil(percentile / 100 * values.size - 1e-9)) - 1
    expected = ordered[max(index, 0)]
    assert expected - 1e-9 <= found <= min(expected + width(state), largest) + 1e-9


@pytest.mark.parametrize("spec", [QuantSpec("int8"), QuantSpec("int8", symmetric=False)], ids=str)
def test_mse_is_the_least_of_all_ranges(spec):
    values = normal_with_outliers()
    observer = observers.get("mse")
    params = observer.finish(observe(observer, values.reshape(1, -1)), spec)

    def error(limit):
        clipped = observers.get("minmax")
        seen = np.clip(values, -limit, limit).reshape(1, -1)
        p = clipped.finish(clipped.update(clipped.init(), seen), spec)
        return squared(values, p)

    largest = np.abs(values).max()
    best = min(error(largest * k / 64) for k in range(8, 65))
    assert squared(values, params) <= best * 1.01
    assert squared(values, params) < error(largest)


def squared(values, params):
    scale, zero = float(params.scale), int(params.zero_point)
    codes = np.clip(np.rint(values / scale) + zero, -128, 127)
    return float((((codes - zero) * scale - values) ** 2).mean())


def reference_divergence(counts, limit, levels):
    """The published algorithm, with loops."""
    p = counts[:limit].astype(float)
    p[-1] += counts[limit:].sum()
    q = np.zeros(limit)
    for code in range(levels):
        bins = [i for i in range(limit) if i * levels // limit == code and counts[i] > 0]
        for i in bins:
            q[i] = counts[bins].sum() / len(bins)
    if any(p[i] > 0 and q[i] == 0 for i in range(limit)):
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@given(
    counts=st.lists(st.integers(0, 9), min_size=12, max_size=40).filter(any),
    limit=st.integers(5, 12),
    levels=st.integers(2, 5),
)
def test_divergence_agrees_with_a_plain_reference(counts, limit, levels):
    counts = np.array(counts)
    if not counts[:limit].any():
        counts[0] = 1
    expected = reference_divergence(counts, limit, levels)
    assert divergence(counts, limit, levels) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every
def test_outliers_are_clipped(observer):
    values = np.r_[np.random.default_rng(0).normal(size=100_000), 60.0].astype(np.float32)
    state = observe(observer, values.reshape(1, -1))
    assert float(observer.finish(state, QuantSpec("int8")).scale) < 0.8 * 60 / 127


@algebra
@pytest.mark.parametrize("values", [[0.0], [0.0, 1e-45], [3e38, -3e38], [5.0], [-0.25] * 9])
def test_extreme_tensors(observer, values):
    state = observe(observer, np.array([values], np.float32))
    for spec in (QuantSpec("int8"), QuantSpec("uint8", symmetric=False), QuantSpec("fp8e4m3")):
        params = observer.finish(state, spec)
        assert np.isfinite(params.scale)
        assert params.scale >= np.finfo(np.float32).tiny


@algebra
def test_what_cannot_be_told(observer):
    with pytest.raises(DataError, match="saw no value"):
        observer.finish(observer.init(), QuantSpec("int8"))
    with pytest.raises(RecipeError, match="cannot give a per-channel"):
        observer.finish(observe(observer, np.ones((1, 2))), QuantSpec("int8", PerAxis(0)))


@algebra
def test_channels_scaled_apart_keep_their_ranges(observer):
    state = observe(observer, np.array([[1.0, -2.0], [30.0, 0.0]]))
    rescaled = observer.rescale(state, np.array([2.0, 0.1]))
    assert observer.finish(rescaled, QuantSpec("int8")).scale == np.float32(4 / 127)


def test_counts_of_absolute_values():
    counts = np.zeros(2 * SIDE, np.int64)
    counts[SIDE], counts[SIDE - 1], counts[-1], counts[0] = 3, 4, 5, 6
    folded = magnitudes(counts)
    assert (folded[0], folded[-1], folded.sum()) == (7, 11, 18)


@pytest.mark.parametrize("name", COUNTING)
def test_a_model_is_quantized_with_each(name):
    model = with_weights(
        "g (float[8, 64] x, float[64, 64] w) => (float[8, 64] y) { [op] y = MatMul(x, w) }"
    )
    feeds = [random_feed(model, seed) for seed in range(4)]
    scales = {}
    for observer in (name, "minmax"):
        report = onnxq.quantize(
            model,
            preset="int8",
            target="rtx-sm89",
            calibration=feeds,
            recipe={"activations": {"observer": observer}},
        ).report
        numbers = report.decisions[0].numbers
        scales[observer] = numbers["input_scale"]
        assert re.fullmatch(rf"({name}|minmax), clips [\d.e-]+ %", numbers["range"])
    assert scales[name] <= scales["minmax"]
