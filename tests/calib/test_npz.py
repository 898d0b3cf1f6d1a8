"""Data sets in one .npz."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq.calib import npz
from onnxq.errors import DataError


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4),
    ),
    st.booleans(),
)
def test_samples_are_the_slices(tmp_path_factory, array, compress):
    path = tmp_path_factory.mktemp("npz") / "data.npz"
    (np.savez_compressed if compress else np.savez)(path, a=array)
    samples = [sample["a"] for sample in npz.read_samples(path)]
    assert npz.count_samples(path) == len(samples) == len(array)
    joined = np.concatenate(samples)
    assert joined.dtype == array.dtype
    assert joined.tobytes() == array.tobytes()
    assert all(
        sample.shape == (1, *array.shape[1:]) and sample.flags.writeable for sample in samples
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones(2), "b": np.ones(3)}, "must be the same for all arrays; found 'a' 2, 'b' 3"),
        ({"a": np.float32(1)}, "'a' is a scalar"),
        ({"a": np.array([{}, []], object)}, "never unpickled"),
        ({"a": np.asfortranarray(np.ones((2, 3)))}, "Fortran order"),
    ],
)
def test_refused(tmp_path, arrays, message):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        npz.count_samples(path)


@pytest.mark.parametrize("damage", ["cut", "text", "flip"])
def test_damaged(tmp_path, damage):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).random((64, 64)))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "text":
        data = b"hello"
    else:
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"data\.npz cannot be read"):
        list(npz.read_samples(path))
