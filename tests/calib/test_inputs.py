"""What of a feed is refused, and how it is said."""

import re

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calib.inputs import check_feed, model_inputs
from onnxq.errors import DataError, ModelError

X = np.ones((1, 3, 8), np.float32)
IDS = np.ones(1, np.int64)


def check(model, feed):
    return check_feed(model_inputs(model), feed, "feed 2 (a.npz)")


def test_a_good_feed_is_passed_on_in_the_order_of_the_inputs(model):
    feed = check(model, {"ids": IDS, "x": X})
    assert list(feed) == ["x", "ids"]
    assert feed["x"] is X


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"x": X}, "Feed 2 (a.npz) lacks the input 'ids'. Inputs: 'x' float32[batch, 3, width]"),
        ({"x": X, "ids": IDS, "idx": IDS}, "not an input of the model. Did you mean 'ids'?"),
        ({"x": X, "ids": IDS, 3: IDS}, "has '3', which is not an input"),
        (
            {"x": X.astype("f8"), "ids": IDS},
            "Feed 2 (a.npz), input 'x': expected float32[batch, 3, width], "
            "found float64[1, 3, 8]. Convert it: array.astype('float32').",
        ),
        ({"x": X[0], "ids": IDS}, "rank 2 instead of 3. Mind the batch axis"),
        ({"x": X[None], "ids": IDS}, "rank 4 instead of 3. Reshape it."),
        ({"x": X[:, :2], "ids": IDS}, "axis 1 is 2 instead of 3"),
        ({"x": X * np.nan, "ids": IDS}, "found NaN or infinity"),
        ({"x": X * np.inf, "ids": IDS}, "found NaN or infinity"),
        ({"x": X.tolist(), "ids": IDS}, "found a list. Give a numpy array."),
        ((X, IDS), "is a tuple; expected a dict"),
    ],
)
def test_refusals(model, feed, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check(model, feed)


def test_a_nan_in_bfloat16_is_seen():
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17]> g (bfloat16[n] x) => (bfloat16[n] y) '
        "{ y = Identity(x) }"
    )
    with pytest.raises(DataError, match="NaN"):
        check(model, {"x": np.array([np.nan], ml_dtypes.bfloat16)})


def test_initializers_listed_as_inputs_need_no_feed():
    model = ir.from_onnx_text(
        '<ir_version: 3, opset_import: ["" : 17]> g (float[-1] x, float[1] w) => (float[n] y) '
        "<float[1] w = {1.0}> { y = Add(x, w) }"
    )
    (spec,) = model_inputs(model)
    assert (spec.name, spec.shape) == ("x", (None,))


def test_strings_cannot_be_fed():
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17]> g (string[n] x) => (string[n] y) '
        "{ y = Identity(x) }"
    )
    with pytest.raises(ModelError, match="Input 'x' has the type STRING"):
        model_inputs(model)
