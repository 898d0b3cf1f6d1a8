"""Calibration of a small model whose numbers are known."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxq import observers
from onnxq.calib.feeds import open_feeds
from onnxq.calib.fingerprint import fingerprint
from onnxq.calib.runner import calibrate
from onnxq.errors import DataError, ModelError

MINMAX = observers.get("minmax")


def feed(*values):
    x = np.broadcast_to(np.array(values, np.float32), (1, 3, len(values)))
    return {"x": np.ascontiguousarray(x), "ids": np.ones(1, np.int64)}


def ranges(store):
    return {n: (float(s["min"].min()), float(s["max"].max())) for n, s in store.states.items()}


def test_inputs_inner_values_and_outputs(model):
    feeds = open_feeds([feed(1, 2, 3), feed(-4)], model)  # the lengths differ
    before = ir.to_proto(model).SerializeToString()
    store = calibrate(model, feeds, dict.fromkeys("xaby", 1), MINMAX)
    # a = x * (1, -2, 0.5), b = relu(a), y = b + 1
    assert ranges(store) == {"x": (-4, 3), "a": (-6, 8), "b": (0, 8), "y": (1, 9)}
    assert store.samples == 2
    assert store.observer == "minmax"
    assert store.feeds == "a list of 2 feeds"
    assert store.fingerprint == fingerprint(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_each_channel_is_observed(model):
    feeds = open_feeds([feed(1, -3), feed(2)], model)
    states = calibrate(model, feeds, {"a": 1, "x": 7}, MINMAX).states
    assert states["a"]["min"].tolist() == [-3, -4, -1.5]
    assert states["a"]["max"].tolist() == [2, 6, 1]
    assert states["x"]["min"].tolist() == [-3]  # it has no axis 7


def test_the_number_of_channels_must_stay(model):
    feeds = open_feeds([feed(1, -3), feed(2)], model)
    with pytest.raises(DataError, match=r"Tensor 'b': .* saw 2 channels and then 1"):
        calibrate(model, feeds, {"b": -1}, MINMAX)


def test_inputs_alone(model):
    store = calibrate(model, open_feeds([feed(1, -2)], model), {"x": 1}, MINMAX)
    assert ranges(store) == {"x": (-2, 1)}


def test_values_of_unknown_type(model):
    assert model.graph.node(0).outputs[0].dtype is None
    calibrate(model, open_feeds([feed(1)], model), {"a": 1}, MINMAX)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_the_order_of_feeds_does_not_matter(model, order):
    data = [feed(0.1, -0.7), feed(0.3), feed(-0.2, 0.9)]
    store = calibrate(model, open_feeds([data[i] for i in order], model), {"a": 1, "b": 1}, MINMAX)
    again = calibrate(model, open_feeds(data, model), {"a": 1, "b": 1}, MINMAX)
    assert ranges(store) == ranges(again)


def test_refused_tensors(model):
    feeds = open_feeds([feed(1)], model)
    for name in ("i", "ids"):
        with pytest.raises(ModelError, match=rf"'{name}' is a tensor\(int64\)"):
            calibrate(model, feeds, {name: 1}, MINMAX)
    with pytest.raises(ModelError, match="'w' is not an activation"):
        calibrate(model, feeds, {"w": 1}, MINMAX)
    with pytest.raises(ModelError, match=r"'xx' is not an activation.*Did you mean 'x'"):
        calibrate(model, feeds, {"xx": 1}, MINMAX)


def test_nan_inside_the_model_names_tensor_and_feed():
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) '
        "{ r = Sqrt(x) y = Relu(r) }"
    )
    data = [{"x": np.array([4, v], np.float32)} for v in (1, -1)]
    with pytest.raises(DataError, match="Tensor 'r' holds NaN or infinity for feed 1 of a list"):
        calibrate(model, open_feeds(data, model), {"r": 0}, MINMAX)


def test_a_sum_that_overflows_is_no_infinity():
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17]> g (float16[n] x) => (float16[n] y) '
        "{ y = Relu(x) }"
    )
    feeds = open_feeds([{"x": np.full(8, 60000, np.float16)}], model)
    assert ranges(calibrate(model, feeds, {"y": 0}, MINMAX)) == {"y": (60000, 60000)}


def test_a_feed_that_does_not_fit_is_named(model):
    bad = feed(1) | {"x": np.ones((1, 3), np.float32)}
    with pytest.raises(DataError, match=r"Feed 1 of a list of 2 feeds, input 'x'.*rank 2"):
        calibrate(model, open_feeds([feed(1), bad], model), {"a": 1}, MINMAX)


def test_a_feed_that_the_model_cannot_run_is_named():
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[n] x, float[m] z) => (float[k] y) '
        "{ y = Add(x, z) }"
    )
    data = [{"x": np.ones(2, np.float32), "z": np.ones(3, np.float32)}]
    with pytest.raises(DataError, match=r"does not run on feed 0 .*x float32\[2\], z float32\[3\]"):
        calibrate(model, open_feeds(data, model), {"y": 0}, MINMAX)
