"""Calibration under a memory limit: the same statistics from fewer values at once."""

import numpy as np
import pytest
from graphs import random_feed, with_weights
from hypothesis import given
from hypothesis import strategies as st

import onnxq
from onnxq import observers
from onnxq.bytesize import in_bytes
from onnxq.calib import runner
from onnxq.calib.feeds import open_feeds
from onnxq.calib.groups import split
from onnxq.calib.taps import Taps, sizes
from onnxq.errors import DataError, RecipeError

MODEL = with_weights(
    "g (float[n, 64] x, bool c, float[64, 64] w1, float[64, 8] w2) => (float[n, 8] y) "
    "{ [one] h = MatMul(x, w1) r = Relu(h) y = If (c) < "
    "then_branch = t () => (float[n, 8] a) { a = MatMul(r, w2) }, "
    "else_branch = e () => (float[n, 8] b) { k = Neg(r) b = MatMul(k, w2) } > }"
)
NAMES = dict.fromkeys(("x", "h", "r", "a", "b", "k"), -1)
FEEDS = [random_feed(MODEL, seed) | {"c": np.array(seed % 2 == 0)} for seed in range(5)]
ROW = 64 * 4
ALL = (3 * 3 * ROW) + 3 * 8 * 4  # x, h, r and a: the first feed has 3 rows


def states(limit, observer="auto", feeds=FEEDS):
    feeds = open_feeds(feeds, MODEL)
    store = runner.calibrate(MODEL, feeds, NAMES, observers.get(observer), memory_limit=limit)
    assert store.samples == len(FEEDS)
    return {
        name: {field: a.tobytes() for field, a in s.items()} for name, s in store.states.items()
    }


@pytest.fixture
def held(monkeypatch):
    """How many bytes each inference gave."""
    found = []
    run = Taps.run

    def counted(taps, sample):
        arrays = run(taps, sample)
        found.append(sum(array.nbytes for tap in arrays for array in tap))
        return arrays

    monkeypatch.setattr(Taps, "run", counted)
    return found


@pytest.mark.parametrize(("limit", "runs"), [(3 * ROW, 4), (6 * ROW, 2), (ALL, 1)])
@pytest.mark.parametrize("observer", ["minmax", "moments", "auto"])
def test_the_limit_holds_and_changes_no_bit(held, limit, runs, observer):
    expected = states(None, observer)
    held.clear()
    assert states(limit, observer) == expected
    assert len(held) == runs * len(FEEDS)
    like_the_first = [n for i, n in enumerate(held) if FEEDS[i % len(FEEDS)]["c"]]
    assert max(like_the_first) <= limit


def test_sizes():
    sample = open_feeds(FEEDS, MODEL).first()
    found = sizes(MODEL, list(NAMES), sample)
    assert found == {"x": 3 * ROW, "h": 3 * ROW, "r": 3 * ROW, "a": 96, "b": 0, "k": 0}


def test_a_generator_suffices_for_one_group():
    assert states(ALL, feeds=iter(FEEDS)) == states(None)
    with pytest.raises(DataError, match=r"is read 4 times; a list_iterator can be read only once"):
        states(3 * ROW, feeds=iter(FEEDS))


def test_a_function_is_called_for_each_group():
    assert states(3 * ROW, feeds=lambda: iter(FEEDS)) == states(None)


def test_a_tensor_larger_than_the_limit():
    with pytest.raises(DataError, match=r"Tensor 'x' takes 768 bytes in the first feed.* is 767"):
        states(767)


def test_no_checkpoint(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot be resumed.*shards can be merged"):
        onnxq.calibrate(MODEL, FEEDS, checkpoint=tmp_path / "p", memory_limit="2GB")


def test_quantize_takes_a_limit():
    given = {"preset": "int8", "target": "ort-cpu"}
    limited = onnxq.quantize(MODEL, calibration=FEEDS, memory_limit="800 B", **given)
    assert limited.report.to_json() == (
        onnxq.quantize(MODEL, calibration=FEEDS, **given).report.to_json()
    )
    stats = onnxq.calibrate(MODEL, FEEDS)
    for useless in ({"provider": "cuda"}, {"memory_limit": 10**9}):
        with pytest.raises(RecipeError, match="nothing is calibrated"):
            onnxq.quantize(MODEL, stats=stats, calibration=FEEDS, **given, **useless)
        with pytest.raises(RecipeError, match="nothing is calibrated"):
            onnxq.quantize(MODEL, preset="int4", target="ort-cpu", **useless)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("500m", 5 * 10**8), (7, 7), (None, None)],
)
def test_texts(text, expected):
    assert in_bytes(text) == expected


@pytest.mark.parametrize("text", ["much", "0", "-1GB", "GB", 0, "1EB", ""])
def test_no_number_of_bytes(text):
    with pytest.raises(RecipeError, match="Write 2GB or 500MB"):
        in_bytes(text)


@given(st.lists(st.integers(0, 10)), st.integers(10, 30))
def test_groups_are_full_but_not_over(numbers, limit):
    tensors = {f"t{i}": i for i in range(len(numbers))}
    found = dict(zip(tensors, numbers, strict=True))
    groups = split(tensors, found, limit)
    assert {name: axis for group in groups for name, axis in group.items()} == tensors
    filled = [sum(found[name] for name in group) for group in groups]
    assert max(filled) <= limit
    assert all(a + found[next(iter(b))] > limit for a, b in zip(filled, groups[1:], strict=False))
