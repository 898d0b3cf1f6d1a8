"""Weights that are quantized when they are written, once, and forgotten then."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.errors import ModelError
from onnxq.passes.weights import rtn
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import PerAxis, QuantSpec

SPEC = QuantSpec("int8", PerAxis(0))


def lazy(array, calls):
    def algorithm(weight, spec):
        calls.append(weight.shape)
        return rtn.quantize(weight, spec)

    return LazyWeight(ir.Tensor(array, name="w"), SPEC, algorithm)


def parts(weight):
    return (
        weight.part(lambda q: q.codes, ir.DataType.INT8, (2, 3)),
        weight.part(lambda q: q.params.scale, ir.DataType.FLOAT, (2,)),
    )


def test_quantized_when_read_once_for_all_parts_and_again_when_read_again():
    calls = []
    codes, scale = parts(lazy(np.ones((2, 3), np.float32), calls))
    assert (codes.dtype, codes.shape.numpy(), codes.nbytes) == (ir.DataType.INT8, (2, 3), 6)
    assert not calls
    codes.numpy()
    scale.numpy()
    assert len(calls) == 1
    codes.numpy()
    assert len(calls) == 2


def test_a_part_of_another_shape_than_announced():
    weight = lazy(np.ones((2, 3), np.float32), [])
    wrong = weight.part(lambda q: q.codes.T, ir.DataType.INT8, (2, 3))
    with pytest.raises(ValueError, match=r"A part of w is \(3, 2\), not \(2, 3\)"):
        wrong.numpy()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(2, 3), (6,)])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad, shape):
    array = np.ones(shape, np.float32)
    array.flat[4] = bad
    weight = lazy(array, [])
    codes = weight.part(lambda q: q.codes, ir.DataType.INT8, shape)
    with pytest.raises(ModelError, match=r"weight 'w' holds NaN or infinity.*--exclude"):
        codes.numpy()


def test_the_source_is_not_kept_mapped(tmp_path):
    (tmp_path / "data").write_bytes(np.ones(6, np.float32).tobytes())
    source = ir.ExternalTensor(
        "data", 0, 24, ir.DataType.FLOAT, shape=ir.Shape((2, 3)), name="w", base_dir=tmp_path
    )
    weight = LazyWeight(source, SPEC, rtn.quantize)
    codes, _ = parts(weight)
    assert codes.numpy().tolist() == [[127] * 3] * 2
    assert source.raw is None
