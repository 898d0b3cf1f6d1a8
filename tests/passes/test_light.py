"""Which Convs have too few products for int8 to pay between floats."""

import pytest
from graphs import with_weights

from onnxq import targets
from onnxq.passes.light import is_light
from onnxq.passes.plan import make_plan
from onnxq.recipe import resolve

WEIGHTS = {
    "stem": "float[16, 3, 3, 3] ws",
    "thin": "float[32, 16, 1, 1] w1",
    "deep": "float[32, 1, 3, 3] w2",
    "wide": "float[96, 32, 1, 1] w3",
    "full": "float[32, 96, 1, 1] w4",
}
INPUTS = ", ".join(WEIGHTS.values())
SWISH = "s = Add(v, w5) c = Clip(s, wl, wh) m = Mul(v, c) y = Div(m, wh)"
DEEP = "<group = 32, pads = [1, 1, 1, 1]>"


def light(nodes, more=""):
    """The names of the Convs that are light."""
    graph = (
        f"g (float[1, 3, 9, 9] x, {INPUTS}, float w5, float wl, float wh) => "
        f"(float[n] y{more}) {{ [stem] t = Conv(x, ws) {nodes} }}"
    )
    model = with_weights(graph)
    return [n.name for n in model.graph if n.op_type == "Conv" and is_light(n)], model


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (f"r = HardSwish(t) [thin] u = Conv(r, w1) h = HardSwish(u) [deep] d = Conv {DEEP} (h, w2) "
         "k = HardSwish(d) [wide] y = Conv(k, w3)", ["stem", "thin", "deep", "wide"]),
        (f"[thin] u = Conv(t, w1) h = Relu(u) [deep] v = Conv {DEEP} (h, w2) {SWISH}",
         ["stem", "thin", "deep"]),
        (f"[thin] u = Conv(t, w1) h = Relu(u) [deep] d = Conv {DEEP} (h, w2) k = Clip(d, wl, wh) "
         "[wide] e = Conv(k, w3) f = Relu(e) [full] y = Conv(f, w4)", []),
        (f"[thin] u = Conv(t, w1) [deep] d = Conv {DEEP} (u, w2) k = Relu(d) p = "
         "GlobalAveragePool(k) m = Mul(k, p) [wide] e = Conv(m, w3) f = HardSwish(e) "
         "[full] y = Conv(f, w4)", ["stem", "thin", "deep", "wide"]),
        ("r = HardSwish(t) [thin] u = Conv(r, w1) h = HardSwish(u) [wide] e = Conv(h, w3) "
         "f = HardSwish(e) [full] y = Conv(f, w4)", []),
    ],
)  # fmt: skip
def test_convs_beside_depthwise_ones_unless_they_hand_on_codes(nodes, expected):
    assert light(nodes)[0] == expected


def test_an_output_of_the_model_is_not_handed_on():
    nodes = (
        f"[thin] u = Conv(t, w1) [deep] d = Conv {DEEP} (u, w2) [wide] e = Conv(d, w3) "
        "[full] y = Conv(e, w4)"
    )
    assert light(nodes)[0] == []
    assert light(nodes, ", float[n] d")[0] == ["stem", "thin", "deep"]


def test_onnx_runtime_computes_them_in_float_and_says_why():
    nodes = (
        f"r = HardSwish(t) [thin] u = Conv(r, w1) h = HardSwish(u) [deep] d = Conv {DEEP} (h, w2) "
        "k = HardSwish(d) [wide] e = Conv(k, w3) f = HardSwish(e) [full] y = Conv(f, w4)"
    )
    names, model = light(nodes)
    assert names == ["stem", "thin", "deep", "wide"]
    plan = make_plan(model, resolve("int8"), targets.get("ort-cpu"))
    assert [op.node for op in plan.ops] == ["full"]
    reasons = {kept.reason for kept in plan.kept if kept.node in names}
    assert len(reasons) == 1
    assert "at most 64 products an output" in reasons.pop()
    wide = make_plan(model, resolve("int16-activations"), targets.get("ort-cpu"))
    assert len(wide.ops) == 5
