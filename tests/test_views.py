"""Parts of tensors, in memory and in files."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxq import io
from onnxq.errors import ModelError
from onnxq.views import view
from onnxq.weightfile import WeightInFile, refer_to_files

VALUES = np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)
TEXT = (
    '<ir_version: 10, opset_import: ["" : 17]> g (float[3, 40, 50] x) => (float[3, 40, 50] y) '
    "<float[1, 1, 1] w = {0}> { y = Mul(x, w) }"
)


def loaded(path, *, external_data):
    model = ir.from_onnx_text(TEXT)
    model.graph.initializers["w"].const_value = ir.Tensor(VALUES, name="w")
    io.save(model, path, external_data=external_data)
    return io.load(path)


def in_model(tensor):
    """Something that has `tensor` as its weight."""
    model = ir.from_onnx_text(TEXT)
    model.graph.initializers["w"].const_value = tensor
    return model


@pytest.mark.parametrize(
    ("external_data", "kind"), [(False, WeightInFile), (True, ir.ExternalTensor)]
)
def test_a_view_of_a_file_stays_in_the_file(tmp_path, external_data, kind):
    model = loaded(tmp_path / "m.onnx", external_data=external_data)
    found = view(model.graph.initializers["w"].const_value, (50, 40), 2000)
    assert isinstance(found, kind)
    assert (found.name, found.nbytes, found.dtype) == ("w", 8000, ir.DataType.FLOAT)
    np.testing.assert_array_equal(found.numpy(), VALUES[1].reshape(50, 40))
    assert found.tobytes() == VALUES[1].tobytes()
    inside = view(found, (40,), 40)
    assert isinstance(inside, kind)
    np.testing.assert_array_equal(inside.numpy(), VALUES[1].reshape(50, 40)[1])


def test_a_view_is_mapped_by_onnx_runtime(tmp_path):
    model = loaded(tmp_path / "m.onnx", external_data=False)
    found = view(model.graph.initializers["w"].const_value, (40, 50), 4000)
    mapped = refer_to_files(in_model(found)).graph.initializers["w"].const_value
    assert isinstance(mapped, ir.ExternalTensor)
    np.testing.assert_array_equal(mapped.numpy(), VALUES[2])


def test_a_view_of_a_file_that_has_changed(tmp_path):
    model = loaded(tmp_path / "m.onnx", external_data=False)
    whole = model.graph.initializers["w"].const_value
    (tmp_path / "m.onnx").write_bytes(b"0" * 40_000)
    with pytest.raises(ModelError, match="has changed"):
        view(whole, (2, 1000), 2000).numpy()


def test_a_view_of_what_is_computed_is_computed_when_it_is_read():
    reads = []

    def read():
        reads.append(1)
        return ir.Tensor(VALUES)

    found = view(ir.LazyTensor(read, ir.DataType.FLOAT, ir.Shape([3, 40, 50])), (2000,), 4000)
    assert not reads
    np.testing.assert_array_equal(found.numpy(), VALUES[2].reshape(-1))


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.BFLOAT16])
def test_a_view_of_an_array_is_no_copy(dtype):
    array = VALUES.astype(dtype.numpy())
    found = view(ir.Tensor(array, dtype), (1, 2000), 2000)
    assert np.shares_memory(found.numpy(), array)
    np.testing.assert_array_equal(found.numpy()[0], array[1].reshape(-1))
