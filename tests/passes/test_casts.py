"""Tensors of another float type."""

import numpy as np
import onnx_ir as ir

from onnxq.passes.casts import CastTensor, uncast


def test_a_cast_is_made_each_time_it_is_read():
    reads = []

    def read():
        reads.append(1)
        return ir.tensor(np.array([1.0, 1e-3, 1e6], np.float32))

    source = ir.LazyTensor(read, ir.DataType.FLOAT, ir.Shape([3]), name="w")
    cast = CastTensor(source, ir.DataType.FLOAT16)
    assert (cast.name, cast.nbytes, reads) == ("w", 6, [])
    expected = np.array([1, 1e-3, np.inf], np.float16)
    np.testing.assert_array_equal(cast.numpy(), expected)
    assert cast.tobytes() == expected.tobytes()
    assert len(reads) == 2


def test_what_a_tensor_was_cast_from():
    source = ir.tensor(np.ones(2, np.float32))
    assert uncast(CastTensor(source, ir.DataType.BFLOAT16)) is source
    assert uncast(source) is source
