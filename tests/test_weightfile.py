"""Reading a model file without its weights."""

import io as bytes_io
import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq import io, weightfile
from onnxq.errors import ModelError
from onnxq.weightfile import WeightInFile, read_outline, refer_to_files

LARGE = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    """A file with one large weight, a small one, and an odd number of bytes before them."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17], producer_name: "abc">\n'
        "g (float[40, 50] x) => (float[40, 50] z) <float[1, 1] w = {0}, float[1] small = {7}>"
        "{ y = Mul(x, w) z = Add(y, small) }"
    )
    model.graph.initializers["w"].const_value = ir.Tensor(LARGE, name="w")
    onnx.save(ir.to_proto(model), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def weight(path):
    found = io.load(path).graph.initializers["w"].const_value
    assert isinstance(found, WeightInFile)
    return found


def test_the_outline_and_the_places_are_the_whole(path):
    outline, places = read_outline(path)
    ((name, (offset, size)),) = places.items()
    whole = onnx.load(path)
    assert outline.ByteSize() < whole.ByteSize() - size
    found = next(each for each in outline.graph.initializer if each.name == name)
    found.raw_data = path.read_bytes()[offset : offset + size]
    assert outline == whole


def test_a_weight_is_what_the_file_holds(path):
    found = weight(path)
    np.testing.assert_array_equal(found.numpy(), LARGE)
    assert found.tobytes() == LARGE.tobytes()
    assert (found.nbytes, found.shape, found.dtype) == (8000, [40, 50], ir.DataType.FLOAT)
    assert not isinstance(io.load(path).graph.initializers["small"].const_value, WeightInFile)


def test_a_weight_is_copied_in_blocks(path, monkeypatch):
    monkeypatch.setattr(weightfile, "_BLOCK_BYTES", 999)
    sink = bytes_io.BytesIO()
    weight(path).tofile(sink)
    assert sink.getvalue() == LARGE.tobytes()


def test_a_reference_names_the_same_bytes(path):
    loaded = io.load(path)
    found = refer_to_files(loaded).graph.initializers["w"].const_value
    assert isinstance(found, ir.ExternalTensor)
    np.testing.assert_array_equal(found.numpy(), LARGE)
    assert isinstance(loaded.graph.initializers["w"].const_value, WeightInFile)
    plain = ir.Model(ir.Graph([], [], nodes=[], name="g"), ir_version=10)
    assert refer_to_files(plain) is plain


@pytest.mark.parametrize("read", [WeightInFile.numpy, lambda w: w.tofile(bytes_io.BytesIO())])
def test_a_file_that_changed_or_went(path, read):
    found = weight(path)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ModelError, match=r"'w' cannot be read from .*m\.onnx', which has changed"):
        read(found)
    os.remove(path)
    with pytest.raises(ModelError, match=r"'w' cannot be read from .*: No such file"):
        read(found)


@pytest.mark.parametrize("bits", [4, 16])
def test_types_that_numpy_does_not_know(tmp_path, bits):
    dtype = ir.DataType.INT4 if bits == 4 else ir.DataType.BFLOAT16
    values = np.arange(-8, 8).repeat(1024).astype(dtype.numpy())
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    )
    model.graph.register_initializer(ir.Value(name="w", const_value=ir.Tensor(values, name="w")))
    onnx.save(ir.to_proto(model), tmp_path / "m.onnx")
    found = io.load(tmp_path / "m.onnx").graph.initializers["w"].const_value
    np.testing.assert_array_equal(found.numpy(), values)
    assert isinstance(found, WeightInFile)
    assert found.tobytes() == ir.Tensor(values).tobytes()


def test_a_weight_of_the_wrong_size(path):
    proto = onnx.load(path)
    proto.graph.initializer[0].raw_data += b"\0"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"weight 'w' .* holds 8001 bytes; .* \[40,50\] .* 8000"):
        io.load(path)


@pytest.mark.parametrize("data", [b"\x0b", b"\x3a\x05", b"\x3a" + b"\xff" * 11, b"\x3d\x00"])
def test_no_protobuf(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ValueError, match=r"wire type|ends behind|no end"):
        read_outline(tmp_path / "m.onnx")
