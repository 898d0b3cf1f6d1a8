"""A table that was written twice is stored once, and quantized once."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, with_weights

import onnxq
from onnxq import io
from onnxq.onnxfile import stored_bytes
from onnxq.passes.prepare import prepare
from onnxq.passes.prepare.store_once import StoreOnce

ROWS, LENGTH = 1200, 64
TABLE = np.random.default_rng(0).normal(0, 0.1, (ROWS, LENGTH)).astype(np.float32)
TURNED = (
    f"g (int64[n] i, float[{ROWS}, {LENGTH}] w, float[{LENGTH}, {ROWS}] wt) "
    f"=> (float[n, {ROWS}] y) {{ [look] e = Gather(w, i) h = Tanh(e) [head] y = MatMul(h, wt) }}"
)
COPIED = (
    f"g (int64[n] i, float[{ROWS}, {LENGTH}] w, float[{ROWS}, {LENGTH}] wt) "
    f"=> (float[n, {ROWS}] y) {{ [look] e = Gather(w, i) h = Tanh(e) "
    "[head] y = Gemm <transB = 1> (h, wt) }"
)
FEED = {"i": np.array([0, 7, ROWS - 1])}


def turned(copy=None, graph=TURNED):
    return with_weights(graph, 21, w=TABLE, wt=TABLE.T if copy is None else copy)


@pytest.fixture(params=["in memory", "in the file", "beside it"])
def model(request, tmp_path):
    if request.param == "in memory":
        return turned()
    io.save(turned(), tmp_path / "m.onnx", external_data=request.param == "beside it")
    return io.load(tmp_path / "m.onnx")


def test_a_transposed_copy_is_the_table(model):
    expected = compute(turned(), **FEED)
    prepare(model)
    assert stored_bytes(model) == TABLE.nbytes
    assert sorted(node.op_type for node in model.graph) == ["Gather", "MatMul", "Tanh", "Transpose"]
    np.testing.assert_array_equal(compute(model, **FEED), expected)
    assert not StoreOnce()(model).modified


def test_a_copy_is_the_table():
    model = turned(TABLE, COPIED)
    prepare(model)
    assert list(model.graph.initializers) == ["w"]
    np.testing.assert_array_equal(compute(model, **FEED), compute(turned(TABLE, COPIED), **FEED))


@pytest.mark.parametrize("place", [(0, 0), (LENGTH - 1, ROWS - 1)])
def test_one_bit_more_is_another_matrix(place):
    other = TABLE.T.copy()
    other[place] = np.nextafter(other[place], 1)
    assert not StoreOnce()(turned(other)).modified


def test_two_products_keep_a_matrix_each():
    text = TURNED.replace("=> (float[n, 1200] y)", "=> (float[n, 1200] y, float[n, 64] z)").replace(
        "y = MatMul(h, wt)", "y = MatMul(h, wt) z = MatMul(y, w)"
    )
    model = with_weights(text, 21, w=TABLE, wt=TABLE.T)
    assert not StoreOnce()(model).modified


def test_small_matrices_and_other_types_stay():
    small = with_weights(
        "g (int64[n] i, float[90, 8] w, float[8, 90] wt) => (float[n, 90] y) "
        "{ e = Gather(w, i) y = MatMul(e, wt) }",
        w=TABLE[:90, :8],
        wt=TABLE[:90, :8].T,
    )
    assert not StoreOnce()(small).modified
    other = turned()
    half = ir.tensor(TABLE.T.astype(np.float16))
    other.graph.initializers["wt"].const_value = half
    assert not StoreOnce()(other).modified


@pytest.mark.parametrize(
    ("preset", "target"), [("int4", "ort-cpu"), ("int4", "rtx-sm89"), ("int8-dynamic", "ort-cpu")]
)
def test_codes_are_stored_once_too(preset, target):
    whole = onnxq.quantize(turned(), preset=preset, target=target)
    table = onnxq.quantize(
        turned(np.zeros((LENGTH, ROWS))), preset=preset, target=target, exclude=["head"]
    )
    assert whole.report.counts()[preset[:4]] == 2
    apart = stored_bytes(table.model) - 4 * TABLE.size
    assert stored_bytes(whole.model) < 1.2 * apart
