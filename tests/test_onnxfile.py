"""Writing weight by weight gives the file that protobuf would."""

import itertools

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import with_weights
from hypothesis import given
from hypothesis import strategies as st

from onnxq import onnxfile
from onnxq.errors import ModelError
from onnxq.onnxfile import stored_bytes, write_model, write_outline

DTYPES = [
    *(
        np.float16,
        np.float32,
        np.float64,
        np.int8,
        np.uint8,
        np.int16,
        np.int32,
        np.int64,
        np.bool_,
    ),
    *(ml_dtypes.bfloat16, ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fn),
    ml_dtypes.float4_e2m1fn,
]


def model_of(arrays):
    model = with_weights("g (float[1] x) => (float[1] y) { y = Relu(x) }", opset=21)
    model.metadata_props["key"] = "value"
    for name, array in arrays.items():
        model.graph.register_initializer(
            ir.Value(name=name, const_value=ir.tensor(array, name=name))
        )
    return model


def contents(proto):
    return {
        tensor.name: (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor))
        for tensor in proto.graph.initializer
    }


def assert_same(found, expected):
    a, b = contents(found), contents(expected)
    assert list(a) and set(a) == set(b)
    for name in a:
        assert a[name][:2] == b[name][:2]
        np.testing.assert_array_equal(a[name][2], b[name][2])
    for each in (found, expected):
        del each.graph.initializer[:]
    assert found == expected


ARRAYS = {
    f"w{i}": (np.arange(count) % 7).reshape(shape).astype(dtype)
    for i, dtype in enumerate(DTYPES)
    for count, shape in [(2501, (61, 41))]
} | {
    "small": np.ones(3, np.float32),
    "scalar": np.array(1.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "text": ["a", "bc"],
}


@pytest.mark.parametrize("layout", ["inside", "beside"])
def test_every_type(layout, tmp_path):
    model = model_of(ARRAYS)
    seen = []
    write_model(model, tmp_path / "m.onnx", layout, lambda: seen.append(1))
    assert_same(onnx.load(tmp_path / "m.onnx"), ir.to_proto(model))
    assert len(seen) == len(DTYPES)
    onnx.checker.check_model(str(tmp_path / "m.onnx"))


@given(sizes=st.lists(st.integers(0, 70_000), max_size=4))
def test_any_sizes(sizes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    model = model_of(
        {f"w{i}": np.full(n, i, np.uint8) for i, n in enumerate(sizes)} | {"k": np.ones(1)}
    )
    write_model(model, folder / "m.onnx", "inside")
    assert_same(onnx.load(folder / "m.onnx"), ir.to_proto(model))
    write_outline(model, folder / "m.onnx", folder / "outline.onnx")
    assert_same(onnx.load(folder / "outline.onnx"), ir.to_proto(model))


def test_an_outline_reads_the_weights_out_of_the_whole_file(tmp_path):
    model = model_of(ARRAYS)
    write_model(model, tmp_path / "m.onnx", "inside")
    write_outline(model, tmp_path / "m.onnx", tmp_path / "o.onnx")
    assert_same(onnx.load(tmp_path / "o.onnx"), ir.to_proto(model))
    assert (tmp_path / "o.onnx").stat().st_size < 6000


def test_data_is_aligned(tmp_path):
    write_model(model_of(ARRAYS), tmp_path / "m.onnx", "beside")
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    offsets = [
        int(entry.value)
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    ]
    assert len(offsets) == len(DTYPES)
    assert all(offset % 64 == 0 for offset in offsets)


@given(sizes=st.lists(st.integers(1024, 9000), min_size=1, max_size=8), most=st.integers(1, 30_000))
def test_shards(sizes, most, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    model = model_of({f"w{i}": np.full(n, i, np.uint8) for i, n in enumerate(sizes)})
    write_model(model, folder / "m.onnx", "beside", shard_bytes=most)
    assert_same(onnx.load(folder / "m.onnx"), ir.to_proto(model))
    held = {}
    for tensor in onnx.load(folder / "m.onnx", load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        held.setdefault(place["location"], []).append(int(place["length"]))
    assert set(held) == {file.name for file in folder.iterdir()} - {"m.onnx"}
    assert list(itertools.chain(*held.values())) == sizes
    names = [f"m.onnx.data-{i + 1:05}-of-{len(held):05}" for i in range(len(held))]
    assert list(held) == (names if len(held) > 1 else ["m.onnx.data"])
    for name, lengths in held.items():
        assert len(lengths) == 1 or (folder / name).stat().st_size <= most
    for (_, lengths), (_, following) in itertools.pairwise(held.items()):
        assert sum(-(-length // 64) * 64 for length in lengths) + following[0] > most


@pytest.mark.parametrize(
    ("name", "expected"),
    [("m.onnx.data", True), ("m.onnx.data-00002-of-00010", True), ("m.onnx.database", False),
     ("m.onnx.data-2", False), ("mxonnx.data", False), ("n.onnx.data", False)],
)  # fmt: skip
def test_names_of_files_of_weights(name, expected, tmp_path):
    assert onnxfile.holds_weights_of(tmp_path / name, tmp_path / "m.onnx") == expected
    assert not onnxfile.holds_weights_of(tmp_path / "sub" / name, tmp_path / "m.onnx")


def test_a_weight_that_lies_about_its_size(tmp_path):
    model = model_of({})
    lazy = ir.LazyTensor(
        lambda: ir.tensor(np.ones(5, np.float32)), ir.DataType.FLOAT, ir.Shape([512])
    )
    model.graph.register_initializer(ir.Value(name="w", const_value=lazy))
    with pytest.raises(ValueError, match=r"has 20 bytes.*ask for 2048"):
        write_model(model, tmp_path / "m.onnx", "inside")


def test_one_weight_is_written_while_the_next_is_computed(tmp_path):
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def make():
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return ir.Tensor(np.ones(512, np.float32).view(Counted))

    model = model_of({})
    for index in range(4):
        lazy = ir.LazyTensor(make, ir.DataType.FLOAT, ir.Shape([512]))
        model.graph.register_initializer(ir.Value(name=f"w{index}", const_value=lazy))
    write_model(model, tmp_path / "m.onnx", "inside")
    assert most <= 2
    assert alive == 0


def test_bytes_stored():
    packed = np.ones((3, 5), ml_dtypes.int4)
    assert stored_bytes(model_of({"a": packed, "b": np.ones(2, np.float32)})) == 8 + 8
    assert stored_bytes(model_of({"text": ["a", "bc"]})) == 3


def test_a_weight_that_cannot_be_computed_is_told_in_its_own_words(tmp_path):
    """Also a small one, which is written with the graph, whose writer wraps every error."""

    def fail():
        raise ModelError("The weight 'w' is too large.")

    small = ir.LazyTensor(fail, ir.DataType.FLOAT, ir.Shape([2]), name="w")
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17]> '
        "g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Add(x, w) }"
    )
    model.graph.initializers["w"].const_value = small
    with pytest.raises(ModelError, match=r"^The weight 'w' is too large\.$"):
        write_model(model, tmp_path / "m.onnx", "inside")
