"""Dimensions that are equal only in name get names of their own; real symbols stay."""

import pytest
from graphs import with_weights

from onnxq.passes.prepare.separate_dims import SeparateDims

CONV = "float[4, 3, 3, 3] w) => (float[b, 4, h, q] y) { y = Conv(x, w) }"


def dims(value):
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def separate(model):
    modified = SeparateDims()(model).modified
    assert not SeparateDims()(model).modified
    return modified, dims(model.graph.inputs[0])


@pytest.mark.parametrize("placeholder", ["?", "-1", "None", "none", "unk__12", "unk", "dynamic"])
def test_placeholders_say_nothing(placeholder):
    model = with_weights(f"g (float[b, 3, h, k] x, {CONV}")
    shape = [placeholder, 3, placeholder, placeholder]
    model.graph.inputs[0].shape = type(model.graph.inputs[0].shape)(shape)
    assert separate(model) == (True, ["x_dim_0", 3, "x_dim_2", "x_dim_3"])


def test_a_negative_size_is_an_unknown_one():
    model = with_weights(f"g (float[b, 3, h, k] x, {CONV}")
    model.graph.inputs[0].shape = type(model.graph.inputs[0].shape)([-1, 3, "h", "k"])
    assert separate(model) == (True, ["x_dim_0", 3, "h", "k"])


def test_symbols_stay():
    assert separate(with_weights(f"g (float[b, 3, h, k] x, {CONV}")) == (False, ["b", 3, "h", "k"])


def test_a_batch_that_is_also_a_height():
    model = with_weights(f"g (float[N, 3, N, N] x, {CONV}")
    assert separate(model) == (True, ["N", 3, "x_dim_2", "x_dim_3"])


def test_a_square_that_no_convolution_reads_may_be_square():
    model = with_weights("g (float[n, n] x) => (float[n, n] y) { y = Relu(x) }")
    assert separate(model) == (False, ["n", "n"])


def test_inner_symbols_that_were_renamed_are_dropped():
    model = with_weights(f"g (float[N, 3, N, N] x, {CONV[:-2]} z = Relu(x) }}")
    inner = next(node for node in model.graph if node.op_type == "Relu").outputs[0]
    inner.shape = model.graph.inputs[0].shape
    separate(model)
    assert dims(inner) == [None, 3, None, None]


def test_a_value_without_shape_is_left_alone():
    model = with_weights(f"g (float[b, 3, h, k] x, {CONV}")
    model.graph.outputs[0].shape = None
    assert not SeparateDims()(model).modified
