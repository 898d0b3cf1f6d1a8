"""The statistics file."""

import numpy as np
import pytest

from onnxq.calib.store import CalibStore
from onnxq.errors import DataError, OutputError
from onnxq.types import QuantSpec


def make(**changes):
    states = {
        "a/b:0": {"min": np.array([-1.0]), "max": np.array([2.0])},
        "weird.name\n": {"min": np.empty(0), "max": np.empty(0)},
    }
    fields = {
        "states": states,
        "fingerprint": "ab" * 32,
        "feeds": "random:2",
        "samples": 2,
        "observer": "minmax",
        "settings": {},
        "is_random": True,
    }
    return CalibStore(**(fields | changes))


def test_round_trip(tmp_path):
    store = make()
    store.save(tmp_path / "a.stats")
    (tmp_path / "b.stats").write_bytes(b"old")
    CalibStore.load(tmp_path / "a.stats").save(tmp_path / "b.stats")
    again = CalibStore.load(tmp_path / "b.stats")
    assert again.summary() == store.summary()
    assert again.fingerprint == store.fingerprint
    assert list(again.states) == list(store.states)
    for name, state in store.states.items():
        assert {f: (a.dtype, a.shape, a.tolist()) for f, a in again.states[name].items()} == {
            f: (a.dtype, a.shape, a.tolist()) for f, a in state.items()
        }
    assert (tmp_path / "a.stats").read_bytes() == (tmp_path / "b.stats").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"a.stats", "b.stats"}


def test_params():
    params = make().params("a/b:0", QuantSpec("int8"))
    assert params.scale == np.float32(2 / 127)
    with pytest.raises(DataError, match=r"nothing about 'c'.*Calibrate again"):
        make().params("c", QuantSpec("int8"))
    with pytest.raises(DataError, match=r"(?s)Tensor 'weird.name.*saw no value"):
        make().params("weird.name\n", QuantSpec("int8"))


def test_another_model():
    make().require("ab" * 32)
    with pytest.raises(DataError, match=r"another model.*abababababab.*cdcdcdcdcdcd"):
        make().require("cd" * 32)


def test_no_folder_to_save_to(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        make().save(tmp_path / "none" / "a.stats")


def test_a_failed_save_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken"):
        make().save(tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "foreign", "newer"])
def test_files_that_are_refused(tmp_path, damage):
    from safetensors.numpy import save

    path = tmp_path / "a.stats"
    make().save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "foreign":
        path.write_bytes(save({"w": np.ones(2)}))
    else:
        path.write_bytes(path.read_bytes().replace(rb"\"version\": 2", rb"\"version\": 9"))
    with pytest.raises(DataError, match=r"a\.stats is not a readable statistics file"):
        CalibStore.load(path)
