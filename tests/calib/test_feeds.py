"""Every way to give data, and every way to give it wrong."""

import logging
import re

import numpy as np
import pytest
from graphs import with_weights

from onnxq.calib.feeds import HOW_TO_GIVE_DATA, open_feeds
from onnxq.errors import DataError


def feed(value=1.0, width=8):
    return {"x": np.full((1, 3, width), value, np.float32), "ids": np.ones(1, np.int64)}


def read(source, model):
    return [sample.feed["x"].flat[0] for sample in open_feeds(source, model)]


def refused(source, model, message):
    with pytest.raises(DataError, match=message):
        list(open_feeds(source, model))


def test_folder(tmp_path, model):
    for index in (2, 0, 1):
        np.savez(tmp_path / f"{index}.npz", **feed(float(index), 8 + index))
    (tmp_path / "notes.txt").touch()
    feeds = open_feeds(tmp_path, model)
    assert feeds.length == 3
    assert feeds.description == f"{tmp_path} (3 files)"
    assert not feeds.is_random
    for _ in range(2):
        assert [s.feed["x"].flat[0] for s in feeds] == [0, 1, 2]
    assert [s.label for s in feeds][1] == f"feed 1 ({tmp_path / '1.npz'})"


def test_a_bad_file_of_a_folder_is_named(tmp_path, model):
    np.savez(tmp_path / "0.npz", **feed())
    np.savez(tmp_path / "1.npz", x=feed()["x"])
    refused(str(tmp_path), model, r"Feed 1 \(.*1\.npz\) lacks the input 'ids'")
    (tmp_path / "1.npz").write_bytes((tmp_path / "0.npz").read_bytes()[:-100])
    refused(str(tmp_path), model, r"1\.npz cannot be read as an \.npz.*BadZipFile")


def test_objects_in_a_folder_are_never_unpickled(tmp_path, model):
    np.savez(tmp_path / "0.npz", x=np.array([{}], object), ids=np.ones(1, np.int64))
    refused(tmp_path, model, "Object arrays cannot be loaded")


def test_empty_folder(tmp_path, model):
    refused(tmp_path, model, r"(?s)holds no \.npz file.*a folder with one")


def test_one_file(tmp_path, model):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.arange(72, dtype=np.float32).reshape(3, 3, 8), ids=np.arange(3))
    feeds = open_feeds(path, model)
    assert feeds.length == 3
    for _ in range(2):
        samples = [s.feed for s in feeds]
        assert [s["x"].shape for s in samples] == [(1, 3, 8)] * 3
        assert np.concatenate([s["x"] for s in samples]).ravel().tolist() == list(range(72))
        assert [s["ids"].tolist() for s in samples] == [[0], [1], [2]]


def test_functions(tmp_path, model, monkeypatch):
    path = tmp_path / "my_feeds.py"
    path.write_text(
        "import numpy as np\n"
        "calls = []\n"
        "def feeds():\n"
        "    calls.append(1)\n"
        "    for i in range(2):\n"
        "        yield {'x': np.full((1, 3, 4), len(calls), 'f4'), 'ids': np.ones(1, 'i8')}\n"
        "def fails():\n"
        "    yield from [next(feeds())]\n"
        "    raise RuntimeError('no disk')\n"
        "def fails_at_once(): return 1 / 0\n"
        "def one(): return {}\n"
        "def number(): return 3\n"
        "def numbers(): return [3]\n"
        "def none(): return []\n"
    )
    source = open_feeds(f"{path}:feeds", model)
    assert (source.length, source.description) == (None, f"{path}:feeds")
    assert [s.feed["x"].flat[0] for s in source] == [1, 1]
    assert [s.feed["x"].flat[0] for s in source] == [2, 2]
    monkeypatch.syspath_prepend(tmp_path)
    assert read("my_feeds:feeds", model) == [1, 1]

    refused(f"{path}:feds", model, "no function 'feds'. Did you mean 'feeds'")
    refused(f"{path}:zzzzzz", model, "It has: .*feeds, fails, fails_at_once, one")
    refused(f"{tmp_path}/other.py:feeds", model, "cannot be imported.*there is no file")
    refused("no_such_module:feeds", model, "ModuleNotFoundError.*Give path/file.py:function")
    refused(f"{path}:fails", model, "Feed 1 of .*:fails failed: RuntimeError: no disk")
    refused(f"{path}:fails_at_once", model, "failed: ZeroDivisionError")
    refused(f"{path}:one", model, "returned a dict; expected several")
    refused(f"{path}:number", model, "returned a int")
    refused(f"{path}:numbers", model, "is a int; expected a dict that maps")
    refused(f"{path}:none", model, "There is no feed in")


def test_a_file_that_does_not_import(tmp_path, model):
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_this_name")
    refused(f"{path}:feeds", model, "ModuleNotFoundError: No module named 'nothing_of_this_name'")


def test_python_objects(model):
    assert read([feed(1), feed(2)], model) == [1, 2]
    assert read(lambda: iter([feed(3)]), model) == [3]
    assert open_feeds([feed()], model).length == 1
    source = open_feeds((feed(i) for i in range(2)), model)
    assert source.length is None
    assert len(list(source)) == 2
    with pytest.raises(DataError, match="a generator, which can be read only once"):
        list(source)
    assert open_feeds(source, model) is source


def test_random(model, caplog):
    with caplog.at_level(logging.WARNING, "onnxq"):
        feeds = open_feeds("random:2", model)
    assert "mean nothing" in caplog.text
    assert feeds.is_random
    assert feeds.length == 2
    first, second = ([s.feed for s in feeds] for _ in range(2))
    assert first[0]["x"].shape == (1, 3, 16)
    assert first[0]["x"].dtype == np.float32
    assert set(first[0]["ids"].tolist()) <= {0, 1}
    assert np.array_equal(first[1]["x"], second[1]["x"])
    assert not np.array_equal(first[0]["x"], first[1]["x"])


def test_random_feeds_of_a_model_with_a_cache_are_the_first_tokens_of_a_text():
    cached = with_weights(
        "g (int64[b, n] x, float[b, 4, past_length, 8] k) => (int64[b, n] y) { y = Identity(x) }"
    )
    feed = open_feeds("random:1", cached).first().feed
    assert feed["k"].shape == (1, 4, 0, 8)
    assert feed["x"].shape == (1, 16)


@pytest.mark.parametrize("source", ["random:", "random:0", "random:-3", "random:x"])
def test_bad_random(source, model):
    refused(source, model, "expected a number of feeds. Write random:8")


@pytest.mark.parametrize("source", ["no/such/folder", "data.npz", 3])
def test_no_data(source, model):
    refused(source, model, re.escape(HOW_TO_GIVE_DATA))


def test_other_files(tmp_path, model):
    (tmp_path / "a.txt").touch()
    refused(tmp_path / "a.txt", model, "neither a folder nor an .npz")


def test_one_dict_is_not_a_data_set(model):
    refused(feed(), model, "Wrap it in a list")


def test_no_feed(model):
    refused([], model, "There is no feed in a list of 0 feeds")


def test_a_few_samples_from_all_over_the_data(model):
    def labels(count, read_before):
        feeds = open_feeds([feed() for _ in range(count)], model)
        if read_before:
            assert len(list(feeds)) == count
        return [sample.label for sample in feeds.some()]

    assert labels(3, True) == labels(3, False)
    assert len(labels(3, True)) == 3
    assert labels(200, True) == labels(200, False)
    numbers = [int(label.split()[1]) for label in labels(200, True)]
    assert len(set(numbers)) == 8
    assert min(numbers) < 60
    assert max(numbers) > 140


def varied(count):
    return [
        {"x": np.full((1, 3, 4), i, np.float32), "ids": np.ones(1, np.int64)} for i in range(count)
    ]


def test_some_feeds_are_held_out(model):
    data = varied(40)
    feeds = open_feeds(data, model).hold_out()
    given = [s.feed["x"].flat[0] for s in feeds]
    kept = [s.feed["x"].flat[0] for s in feeds.held_out()]
    assert 4 < len(kept) < 16
    assert not set(given) & set(kept)
    assert sorted([*given, *kept]) == list(range(40))
    other = open_feeds(data[::-1], model).hold_out()
    assert sorted(s.feed["x"].flat[0] for s in other.held_out()) == sorted(kept)
    assert {s.feed["x"].flat[0] for s in feeds.some()} <= set(given)


def test_of_a_few_feeds_none_is_held_out(model):
    feeds = open_feeds(varied(15), model).hold_out()
    assert len(list(feeds)) == 15
    assert feeds.held_out() == []
    assert len(feeds.some()) == 8


def test_something_is_always_given(model):
    """Also where the one feed of a source of unknown length would be held out."""
    for data in varied(40):
        source = open_feeds((each for each in [data]), model).hold_out()
        assert len(list(source)) == 1
        assert len(source.some()) == 1


def test_feeds_that_are_all_alike_are_not_all_held_out(model):
    for data in varied(12):
        source = open_feeds([data] * 20, model).hold_out()
        assert len(list(source)) > 0
        assert len(source.some()) > 0
