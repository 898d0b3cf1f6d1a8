"""Folding what follows a Conv, ConvTranspose or Gemm: the numbers stay what they are."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

from onnxq.passes.prepare.fold_affine import FoldAffine

BATCH_NORM = "float[{c}] wg, float[{c}] wbeta, float[{c}] wm, float[{c}] wv"
IMAGE = "g (float[2, 4, 5, 5] x, "
POSITIVE = {"wv": np.linspace(0.5, 2, 6)}


def fold(model):
    """The op types left; asserts that the outputs did not change."""
    feed = random_feed(model)
    before = compute(model, **feed)
    names = [value.name for value in model.graph.outputs]
    assert FoldAffine()(model).modified
    assert not FoldAffine()(model).modified
    assert [value.name for value in model.graph.outputs] == names
    for a, b in zip(before, compute(model, **feed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in model.graph]


def unfoldable(model):
    return not FoldAffine()(model).modified


@pytest.mark.parametrize("bias", ["", ", wb"])
@pytest.mark.parametrize("epsilon", ["", "<epsilon = 0.01>"])
def test_batch_norm_behind_conv(bias, epsilon):
    model = with_weights(
        f"{IMAGE} float[6, 4, 3, 3] w, float[6] wb, {BATCH_NORM.format(c=6)}) => "
        f"(float[2, 6, 3, 3] y) {{ h = Conv(x, w{bias}) "
        f"y = BatchNormalization {epsilon} (h, wg, wbeta, wm, wv) }}",
        **POSITIVE,
    )
    assert fold(model) == ["Conv"]


def test_batch_norm_behind_a_grouped_conv():
    model = with_weights(
        f"{IMAGE} float[6, 2, 3, 3] w, {BATCH_NORM.format(c=6)}) => (float[2, 6, 3, 3] y) "
        "{ h = Conv <group = 2> (x, w) y = BatchNormalization(h, wg, wbeta, wm, wv) }",
        **POSITIVE,
    )
    assert fold(model) == ["Conv"]


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_behind_conv_transpose(groups):
    model = with_weights(
        f"{IMAGE} float[4, {6 // groups}, 2, 2] w, {BATCH_NORM.format(c=6)}) => "
        f"(float[2, 6, 6, 6] y) {{ h = ConvTranspose <group = {groups}> (x, w) "
        "y = BatchNormalization(h, wg, wbeta, wm, wv) }",
        **POSITIVE,
    )
    assert fold(model) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["float[6] wb", "float[1, 6] wb", "float[1] wb"])
def test_batch_norm_behind_gemm(transposed, bias):
    shape = "6, 4" if transposed else "4, 6"
    model = with_weights(
        f"g (float[2, 4] x, float[{shape}] w, {bias}, {BATCH_NORM.format(c=6)}) => (float[2, 6] y) "
        f"{{ h = Gemm <transB = {transposed}, alpha = 0.5, beta = 2.0> (x, w, wb) "
        "y = BatchNormalization(h, wg, wbeta, wm, wv) }",
        **POSITIVE,
    )
    assert fold(model) == ["Gemm"]


@pytest.mark.parametrize("shape", ["6, 1, 1", "1, 6, 1, 1", "1", "1, 1, 1, 1"])
def test_mul_and_add_of_one_number_per_channel(shape):
    model = with_weights(
        f"{IMAGE} float[6, 4, 1, 1] w, float[{shape}] wm, float[{shape}] wa) => "
        "(float[2, 6, 5, 5] y) { h = Conv(x, w) m = Mul(h, wm) y = Add(wa, m) }"
    )
    assert fold(model) == ["Conv"]


def test_a_scalar():
    model = with_weights(
        f"{IMAGE} float[6, 4, 1, 1] w, float ws) => (float[2, 6, 5, 5] y) "
        "{ h = Conv(x, w) y = Mul(h, ws) }"
    )
    assert fold(model) == ["Conv"]


@pytest.mark.parametrize(
    ("shape", "why"),
    [("5", "along the width"), ("6, 5, 1", "along channels and height"), ("2, 1, 1, 1", "batch")],
)
def test_maps_along_other_axes_stay(shape, why):
    assert unfoldable(
        with_weights(
            f"{IMAGE} float[6, 4, 1, 1] w, float[{shape}] wm) => (float[2, 6, 5, 5] y) "
            "{ h = Conv(x, w) y = Mul(h, wm) }"
        )
    ), why


def test_what_broadcasts_the_output_stays():
    assert unfoldable(
        with_weights(
            f"{IMAGE} float[6, 4, 1, 1] w, float[1, 1, 1, 1, 1] wm) => (float[1, 2, 6, 5, 5] y) "
            "{ h = Conv(x, w) y = Mul(h, wm) }"
        )
    )


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Conv(x, w) y = Mul(h, h)",
        "h = Conv(x, w) m = Mul(h, wm) r = Relu(h) y = Add(m, r)",
        "h = Conv(x, v) y = Mul(h, wm)",
        "h = Conv(x, w, b) y = Mul(h, wm)",
        "h = Conv(x, w) y = Div(h, wm)",
    ],
)
def test_what_others_read_or_what_is_no_constant_stays(nodes):
    assert unfoldable(
        with_weights(
            f"{IMAGE} float[6, 4, 1, 1] v, float[6] b, float[6, 4, 1, 1] w, float[6, 1, 1] wm) => "
            f"(float[2, 6, 5, 5] y) {{ {nodes} }}"
        )
    )


@pytest.mark.parametrize("bias", ["float[6, 1]", "float[6, 6]"])
def test_a_gemm_whose_addend_differs_by_row_stays(bias):
    assert unfoldable(
        with_weights(
            f"g (float[6, 4] x, float[4, 6] w, {bias} wb, float[6] wm) => (float[6, 6] y) "
            "{ h = Gemm(x, w, wb) y = Mul(h, wm) }"
        )
    )


def test_a_graph_output_stays():
    assert unfoldable(
        with_weights(
            f"{IMAGE} float[6, 4, 1, 1] w, float[6, 1, 1] wm) => "
            "(float[2, 6, 5, 5] h, float[2, 6, 5, 5] y) { h = Conv(x, w) y = Mul(h, wm) }"
        )
    )


def test_batch_norm_in_training_mode_stays():
    assert unfoldable(
        with_weights(
            f"{IMAGE} float[6, 4, 1, 1] w, {BATCH_NORM.format(c=6)}) => (float[2, 6, 5, 5] y) "
            "{ h = Conv(x, w) "
            "y, m, v = BatchNormalization <training_mode = 1> (h, wg, wbeta, wm, wv) }"
        )
    )


def test_a_weight_of_two_convs_is_not_changed_under_the_other():
    model = with_weights(
        f"{IMAGE} float[6, 4, 1, 1] w, float[6, 1, 1] wm) => "
        "(float[2, 6, 5, 5] y, float[2, 6, 5, 5] z) "
        "{ h = Conv(x, w) y = Mul(h, wm) z = Conv(x, w) }"
    )
    assert sorted(fold(model)) == ["Conv", "Conv"]


def test_float16_stays_float16():
    model = with_weights(
        "g (float16[2, 4, 5, 5] x, float16[6, 4, 1, 1] w, float16[6, 1, 1] wm) => "
        "(float16[2, 6, 5, 5] y) { h = Conv(x, w) y = Mul(h, wm) }"
    )
    FoldAffine()(model)
    assert {value.dtype.name for value in model.graph[0].inputs} == {"FLOAT16"}
