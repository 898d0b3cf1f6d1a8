"""Input shapes for an engine: taken, completed, refused with a line to paste."""

import onnx_ir as ir
import pytest
from graphs import with_weights

from onnxq.engines.shapes import profiles
from onnxq.errors import EngineError

IMAGE = "g (float[batch, 3, 48, width] x) => (float y) { y = ReduceMax(x) }"
TWO = """g (int64[batch, n] ids, int64[batch, n] mask) => (int64[batch, n] y)
{ y = Add(ids, mask) }"""
FIXED = "g (float[1, 3] x) => (float[1, 3] y) { y = Relu(x) }"


def found(text, **given):
    return profiles(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {text}'), given)


def test_static_inputs_need_no_shape():
    assert str(found(FIXED)["x"]) == "1x3:1x3:1x3"


def test_min_opt_max():
    profile = found(IMAGE, x="1x3x48x32:2x3x48x320:8x3x48x1280")["x"]
    assert profile.smallest == (1, 3, 48, 32)
    assert profile.common == (2, 3, 48, 320)
    assert profile.largest == (8, 3, 48, 1280)


def test_one_shape_stands_for_three():
    assert str(found(IMAGE, x="1x3x48x32")["x"]) == "1x3x48x32:1x3x48x32:1x3x48x32"


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (IMAGE, {}, r"input 'x' \[batch,3,48,width\]. .* --shape x=1x3x48x32:1x3x48x320:8x3x48x"),
        (TWO, {"ids": "1x8"}, "input 'mask'"),
        (FIXED, {"y": "1x3"}, "no input 'y'. Its inputs are: x"),
        (IMAGE, {"x": "1x3x48"}, "1x3x48 does not fit input 'x'"),
        (IMAGE, {"x": "1x4x48x32"}, "1x4x48x32 does not fit"),
        (IMAGE, {"x": "1,3,48,32"}, "is not MIN:OPT:MAX"),
        (IMAGE, {"x": "1x3x48x32:1x3x48x64"}, "is not MIN:OPT:MAX"),
        (IMAGE, {"x": "1x3x48x64:1x3x48x32:1x3x48x64"}, "do not grow"),
        (TWO, {"ids": "1x8", "mask": "1x9"}, "Dimension 'n' is .* in input 'mask'"),
        ("g (float[] x) => (float[] y) { y = Relu(x) }", {"x": "1"}, "not even a rank"),
    ],
)
def test_refusals(text, given, message):
    with pytest.raises(EngineError, match=message):
        found(text, **given)


def test_the_proposed_line_is_accepted():
    with pytest.raises(EngineError) as failure:
        found(IMAGE)
    proposed = str(failure.value).rpartition("--shape x=")[2]
    assert found(IMAGE, x=proposed)["x"].common == (1, 3, 48, 320)


def test_proposals_fit_each_other():
    model = with_weights(
        "g (float[batch, n] x, float[2, batch, 8] state) => (float[batch, n] y) { y = Relu(x) }"
    )
    with pytest.raises(
        EngineError, match="--shape x=1x1:1x128:8x512 --shape state=2x1x8:2x1x8:2x8x8"
    ):
        profiles(model, {})
    proposed = {"x": "1x1:1x128:8x512", "state": "2x1x8:2x1x8:2x8x8"}
    assert {name: str(profile) for name, profile in profiles(model, proposed).items()} == proposed


@pytest.mark.parametrize("unnamed", [None, ""])
def test_dimensions_without_a_name_are_not_one_dimension(unnamed):
    model = with_weights(
        "g (float[n, 32, h] x, float[2, b] s) => (float[n, 32, h] y) { y = Relu(x)}"
    )
    x, state = model.graph.inputs
    x.shape, state.shape = ir.Shape([unnamed, 32, unnamed]), ir.Shape([2, unnamed])
    given = {"x": "1x32x16:1x32x16:4x32x48", "s": "2x7"}
    assert profiles(model, given)["x"].largest == (4, 32, 48)
    with pytest.raises(EngineError, match="--shape x=1x32x1:1x32x128:8x32x512 --shape s=2x1:"):
        profiles(model, {})
