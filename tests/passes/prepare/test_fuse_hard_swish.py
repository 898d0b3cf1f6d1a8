"""HardSwish in the forms that exporters write it in."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

from onnxq.passes.prepare import prepare

NUMBERS = {"w0": 0.0, "w3": 3.0, "w6": 6.0, "ws": 1 / 6}


def prepared(nodes, opset=13, more=""):
    """The op types of a model with a Conv in front of `nodes`, and its opset."""
    inputs = ", ".join(f"float {name}" for name in NUMBERS)
    model = with_weights(
        f"g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] wk, {inputs}) => (float[n] y{more}) "
        f"{{ v = Conv(x, wk) {nodes} }}",
        opset,
        wk=np.random.default_rng(0).normal(size=(4, 3, 3, 3)),
        **{name: np.array(number) for name, number in NUMBERS.items()},
    )
    feed = random_feed(model)
    before = compute(model, **feed)
    prepare(model)
    for expected, found in zip(before, compute(model, **feed), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return [node.op_type for node in model.graph], model.opset_imports[""]


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(v, w3) c = Clip(a, w0, w6) m = Mul(v, c) y = Div(m, w6)",
        "a = Add(w3, v) c = Clip(a, w0, w6) m = Mul(c, v) y = Mul(m, ws)",
        "a = Add(v, w3) c = Clip(a, w0, w6) g = Div(c, w6) y = Mul(v, g)",
        "a = Add(v, w3) c = Clip(a, w0, w6) g = Mul(ws, c) y = Mul(g, v)",
        "g = HardSigmoid <alpha = 0.16666667, beta = 0.5> (v) y = Mul(v, g)",
    ],
)
@pytest.mark.parametrize("opset", [13, 17])
def test_every_form_becomes_one_op(nodes, opset):
    types, found = prepared(nodes, opset)
    assert types == ["Conv", "HardSwish"]
    assert found == max(opset, 14)


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Add(v, w3) c = Clip(a, w3, w6) m = Mul(v, c) y = Div(m, w6)",
        "a = Add(v, w6) c = Clip(a, w0, w6) m = Mul(v, c) y = Div(m, w6)",
        "a = Add(v, w3) c = Clip(a, w0, w6) m = Mul(v, c) y = Div(m, w3)",
        "a = Add(v, w3) c = Clip(a, w0, w6) m = Mul(a, c) y = Div(m, w6)",
        "a = Add(v, w3) c = Clip(a, w0) m = Mul(v, c) y = Div(m, w6)",
        "g = HardSigmoid(v) y = Mul(v, g)",
        "r = Relu(v) g = HardSigmoid <alpha = 0.16666667, beta = 0.5> (v) y = Mul(r, g)",
        "a = Add(v, w3) y = Div(a, w6)",
    ],
)
def test_other_functions_stay(nodes):
    types, opset = prepared(nodes)
    assert "HardSwish" not in types
    assert opset == 13


def test_what_others_read_too_stays():
    types, _ = prepared(
        "a = Add(v, w3) c = Clip(a, w0, w6) m = Mul(v, c) y = Div(m, w6) z = Neg(c)",
        more=", float[n] z",
    )
    assert sorted(types) == ["Add", "Clip", "Conv", "HardSwish", "Neg"]
