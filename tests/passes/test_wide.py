"""Which nodes stay in float32, and why."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import with_weights

from onnxq.errors import ModelError
from onnxq.passes.value_types import infer_types
from onnxq.passes.wide import wide_nodes

HALF, BFLOAT = ir.DataType.FLOAT16, ir.DataType.BFLOAT16


def wide(graph, narrow=HALF, products=(), wide_attention="", **weights):
    model = with_weights(graph, 21, **weights)
    infer_types(model)
    found = wide_nodes(model, narrow, set(products), wide_attention)
    return {node.outputs[0].name: reason for node, reason in found.items()}


ATTENTION = """
    g (float[b, n, 8] q, float[b, n, 8] k, float[b, n, 8] v, bool[n, n] seen,
       float w_scale, float w_zero, float w_masked) => (float[b, n, 8] y) {
        kt = Transpose<perm = [0, 2, 1]>(k)
        scores = MatMul(q, kt)
        scaled = Mul(scores, w_scale)
        mask = Where(seen, w_zero, w_masked)
        masked = Add(scaled, mask)
        shares = Softmax(masked)
        y = MatMul(shares, v)
    }
    """
NUMBERS = {"w_scale": np.array(0.5), "w_zero": np.array(0.0)}


def test_scores_from_their_scale_to_the_softmax():
    found = wide(ATTENTION, w_masked=np.array(-1e9), **NUMBERS)
    assert list(found) == ["mask", "masked", "shares", "scaled"]
    assert found["mask"] == "its constant 'w_masked' holds 1e+09, and float16 ends at 65504"
    assert found["masked"] == "it reads 'mask', which may be beyond float16"
    assert "sums or powers" in found["shares"]
    assert found["scaled"] == "what it gives is read in float32 alone"


def test_a_mask_that_fits_needs_no_reason_of_its_own():
    found = wide(ATTENTION, w_masked=np.array(-1e4), **NUMBERS)
    assert set(found) == {"masked", "shares", "scaled", "mask"}
    assert found["mask"] == "what it gives is read in float32 alone"


def test_products_with_what_a_softmax_gives():
    found = wide(ATTENTION, w_masked=np.array(-1e4), wide_attention="so", **NUMBERS)
    assert found["y"] == "so"
    assert "scores" not in found


def test_bfloat16_is_as_wide_as_float32_but_for_its_end():
    assert "mask" in wide(ATTENTION, BFLOAT, w_masked=np.array(-1e30), **NUMBERS)
    lowest = np.array(np.finfo(np.float32).min)
    found = wide(ATTENTION, BFLOAT, w_masked=lowest, **NUMBERS)
    assert found["mask"].startswith("its constant 'w_masked' holds 3.403e+38, and bfloat16 ends")


def test_angles_are_of_float32_and_what_is_rotated_is_not():
    found = wide(
        """
        g (int64[n] places, float[n, 4] x, float[4] w) => (float[n, 4] y) {
            axis = Constant<value_ints = [1]>()
            numbers = Cast<to = 1>(places)
            column = Unsqueeze(numbers, axis)
            angles = Mul(column, w)
            cosines = Cos(angles)
            y = Mul(x, cosines)
        }
        """
    )
    assert list(found) == ["numbers", "column", "angles", "cosines"]
    assert found["numbers"] == "it makes floats of integers"
    assert found["angles"] == "it computes with numbers made of integers"


def test_a_norm_in_parts():
    found = wide(
        """
        g (float[n, 8] x, float w_epsilon, float[8] w) => (float[n, 8] y) {
            two = Constant<value_float = 2.0>()
            axes = Constant<value_ints = [-1]>()
            squares = Pow(x, two)
            mean = ReduceMean(squares, axes)
            more = Add(mean, w_epsilon)
            root = Sqrt(more)
            normed = Div(x, root)
            y = Mul(normed, w)
        }
        """,
        w_epsilon=np.array(1e-6),
    )
    assert list(found) == ["squares", "mean", "more", "root"]
    assert found["more"] == "'w_epsilon' is too small a number for float16"


def test_norms_that_are_one_op_read_halves():
    assert not wide(
        "g (float[n, 8] x, float[8] w) => (float[n, 8] y) { y = LayerNormalization(x, w) }"
    )


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("Mystery", "it is not known to run in float16"),
        ("Det", None),
        ("NonMaxSuppression", None),
    ],
)
def test_ops_of_one_type_and_unknown_ones(op, reason):
    if op == "NonMaxSuppression":  # its inputs have one type, whatever the others are
        graph = """g (float[1, n, 4] x, float[1, 2, n] s) => (int64[m, 3] y) {
            y = NonMaxSuppression(x, s) }"""
    else:
        graph = f"g (float[3, 3] x) => (float y) {{ y = {op}(x) }}"
    assert wide(graph).get("y") == reason


def test_a_product_that_would_read_what_does_not_fit():
    graph = """
        g (float[n, 4] x, float[4] w_large, float[4, 4] w) => (float[n, 4] y) {
            large = Mul(x, w_large)
            [product] y = MatMul(large, w)
        }
        """
    with pytest.raises(ModelError, match=r"'product' is to be quantized .* reads 'large'"):
        wide(graph, products=["product"], w_large=np.full(4, 1e6))
