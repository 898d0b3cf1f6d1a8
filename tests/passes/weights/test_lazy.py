"""Weights that are quantized when they are written, once, and forgotten then."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import with_weights

import onnxq
from onnxq.errors import ModelError
from onnxq.passes.weights import _lazy, rtn
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


@pytest.fixture
def narrow(monkeypatch):
    """Stripes of 16 outputs, whatever the weight is."""
    monkeypatch.setattr(_lazy, "_CODES", 1)
    monkeypatch.setattr(_lazy, "_PANEL", 16)
    monkeypatch.setattr(_lazy, "_STRIPES_PER_THREAD", 0)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
@pytest.mark.parametrize("algorithm", ["auto", "rtn", "hqq"])
def test_some_outputs_at_a_time_give_the_same(narrow, algorithm, target, axis):
    weight = "float[64, 200] w" if axis == 0 else "float[200, 64] w"
    product = "y = MatMul(x, w)" if axis == 0 else "t = Transpose(w) y = MatMul(x, t)"
    model = with_weights(f"g (float[n, 64] x, {weight}) => (float[n, 200] y) {{ {product} }}", 21)
    recipe = {"weights": {"algorithm": algorithm}}

    def written():
        found = onnxq.quantize(model, preset="int4", target=target, recipe=recipe).model
        return {k: v.const_value.tobytes() for k, v in found.graph.initializers.items()}

    asked = []
    striped = LazyWeight._in_stripes

    def seen(self, *given):
        asked.append(self.source.name)
        return striped(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LazyWeight, "_in_stripes", seen)
        in_stripes = written()
    assert asked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LazyWeight, "_stripe_width", lambda *_: None)
        assert written() == in_stripes


def test_a_bad_value_among_some_outputs_is_found(narrow):
    array = np.ones((64, 200), np.float32)
    array[3, 199] = np.nan
    model = with_weights(
        "g (float[n, 64] x, float[64, 200] w) => (float[n, 200] y) { y = MatMul(x, w) }", w=array
    )
    found = onnxq.quantize(model, preset="int4", target="ort-cpu").model
    with pytest.raises(ModelError, match="weight 'w' holds NaN or infinity"):
        found.graph.initializers["w_codes"].const_value.numpy()
