"""Calibration in parts: shards that merge, and runs that go on after a kill."""

import itertools

import numpy as np
import pytest
from graphs import random_feed, with_weights

import onnxq
from onnxq.calib import runner
from onnxq.calib.store import CalibStore
from onnxq.errors import DataError

GRAPH = (
    "g (float[n, 64] x, float[64, 64] w1, float[64, 8] w2) => (float[n, 8] y) "
    "{ [one] h = MatMul(x, w1) [two] y = MatMul(h, w2) }"
)
MODEL = with_weights(GRAPH)
FEEDS = [random_feed(MODEL, seed) for seed in range(11)]


def bits(store):
    return {
        name: {field: (a.shape, a.tobytes()) for field, a in state.items()}
        for name, state in store.states.items()
    }


@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_shards_merge_into_the_whole_bit_for_bit(count):
    whole = onnxq.calibrate(MODEL, FEEDS)
    shards = [onnxq.calibrate(MODEL, FEEDS, shard=(i, count)) for i in range(1, count + 1)]
    assert sum(shard.samples for shard in shards) == 11
    for order in itertools.islice(itertools.permutations(shards), 3):
        merged = CalibStore.merge(order)
        assert bits(merged) == bits(whole)
        assert merged.samples == 11
        merged.require(whole.fingerprint)


def test_a_shard_without_data():
    with pytest.raises(DataError, match="no feed in a list of 11 feeds, shard 12 of 12"):
        onnxq.calibrate(MODEL, FEEDS, shard=(12, 12))
    for index in (0, 4):
        with pytest.raises(DataError, match=rf"no shard {index} of 3\. Count from 1"):
            onnxq.calibrate(MODEL, FEEDS, shard=(index, 3))


def test_what_does_not_merge():
    other = with_weights(GRAPH.replace("64, 8", "64, 16").replace("n, 8", "n, 16"))
    stores = [onnxq.calibrate(model, FEEDS) for model in (MODEL, other)]
    with pytest.raises(DataError, match="belong to another model"):
        CalibStore.merge(stores)


@pytest.mark.parametrize("killed_at", [1, 5, 10])
def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch, killed_at):
    monkeypatch.setattr(runner, "_CHECKPOINT_SECONDS", -1)
    partial = tmp_path / "partial"

    class Feeds:
        read = 0

        def __call__(self):
            for feed in FEEDS:
                Feeds.read += 1
                if Feeds.read == killed_at + 1:
                    raise KeyboardInterrupt
                yield feed

    feeds = Feeds()
    with pytest.raises(KeyboardInterrupt):
        onnxq.calibrate(MODEL, feeds, checkpoint=partial)
    assert CalibStore.load(partial).samples == killed_at
    resumed = onnxq.calibrate(MODEL, feeds, checkpoint=partial)
    whole = onnxq.calibrate(MODEL, FEEDS)
    assert (resumed.samples, bits(resumed)) == (11, bits(whole))


def test_a_run_that_was_done_already(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_CHECKPOINT_SECONDS", -1)
    first = onnxq.calibrate(MODEL, FEEDS, checkpoint=tmp_path / "p")
    assert bits(onnxq.calibrate(MODEL, FEEDS, checkpoint=tmp_path / "p")) == bits(first)


def test_other_data_is_not_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_CHECKPOINT_SECONDS", -1)
    onnxq.calibrate(MODEL, FEEDS, checkpoint=tmp_path / "p")
    with pytest.raises(DataError, match=r"was of a list of 11 feeds .* of a list of 4 feeds"):
        onnxq.calibrate(MODEL, FEEDS[:4], checkpoint=tmp_path / "p")


def test_the_order_does_not_matter():
    shuffled = [FEEDS[i] for i in np.random.default_rng(0).permutation(11)]
    assert bits(onnxq.calibrate(MODEL, shuffled)) == bits(onnxq.calibrate(MODEL, FEEDS))
