"""RemoveIdentity, NameEverything, FoldConstants, RaiseOpset."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

from onnxq.errors import ModelError
from onnxq.passes.prepare.fold_constants import FoldConstants
from onnxq.passes.prepare.name_everything import NameEverything
from onnxq.passes.prepare.raise_opset import RaiseOpset
from onnxq.passes.prepare.remove_identity import RemoveIdentity


def op_types(model):
    return [node.op_type for node in model.graph]


def test_readers_of_an_identity_read_its_input():
    model = with_weights(
        "g (float[2] x, float[2] w) => (float[2] y) "
        "{ a = Identity(x) b = Identity(w) c = Identity(a) d = Add(b, c) y = Identity(d) }"
    )
    feed = random_feed(model)
    before = compute(model, **feed)
    assert RemoveIdentity()(model).modified
    assert not RemoveIdentity()(model).modified
    assert op_types(model) == ["Add", "Identity"]
    np.testing.assert_array_equal(compute(model, **feed), before)


def test_names_are_given_and_made_unique():
    model = with_weights(
        "g (float[2] x) => (float[2] y) { [n] a = Relu(x) [n] b = Relu(a) [Relu_0] c = Relu(b) "
        "d = Relu(c) y = Relu(d) }"
    )
    for node in list(model.graph)[3:]:
        node.name = ""
    model.graph[0].outputs[0].name = "b"
    assert NameEverything()(model).modified
    assert not NameEverything()(model).modified
    names = [node.name for node in model.graph]
    assert names[0] == "n"
    assert names[2] == "Relu_0"
    assert len(set(names)) == 5
    assert all(names)
    assert len({value.name for node in model.graph for value in node.outputs}) == 5


def test_names_are_unique_across_branches():
    model = with_weights(
        "g (bool c, float[2] x) => (float[2] y) { y = If (c) < "
        "then_branch = t () => (float[2] a) { a = Relu(x) }, "
        "else_branch = e () => (float[2] b) { b = Relu(x) } > }"
    )
    NameEverything()(model)
    names = [node.name for node in model.graph.all_nodes()]
    assert len(set(names)) == len(names) == 3


def test_what_depends_on_no_input_is_computed():
    model = with_weights(
        "g (float[2, 3] x, float[3] w) => (float[2, 3] y) { a = Neg(w) b = Exp(a) y = Mul(x, b) }"
    )
    feed = random_feed(model)
    before = compute(model, **feed)
    assert FoldConstants()(model).modified
    assert op_types(model)[-1] == "Mul"
    assert set(op_types(model)[:-1]) <= {"Constant"}
    np.testing.assert_allclose(compute(model, **feed), before, rtol=1e-6)


@pytest.mark.parametrize("found", [8, 9, 11, 12, 13, 17])
@pytest.mark.parametrize("wanted", [13, 18, 19, 21])
def test_opsets_are_raised_and_never_lowered(found, wanted):
    model = with_weights(
        "g (float[2, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[2, 4] y) "
        "{ c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) "
        "y = Softmax <axis = 1> (f) }",
        opset=found,
    )
    feed = random_feed(model)
    before = compute(model, **feed)
    assert RaiseOpset(wanted)(model).modified == (wanted > found)
    assert model.opset_imports[""] == max(found, wanted)
    assert not RaiseOpset(wanted)(model).modified
    np.testing.assert_allclose(compute(model, **feed), before, rtol=1e-6)


def test_the_ir_version_grows_with_the_opset():
    model = with_weights("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=11)
    model.ir_version = 6
    RaiseOpset(21)(model)
    assert model.ir_version == 10


def test_a_model_without_the_default_domain():
    model = with_weights("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.opset_imports.clear()
    with pytest.raises(ModelError, match="imports no version of the ONNX operator set"):
        RaiseOpset(13)(model)


def test_an_op_without_conversion():
    model = with_weights("g (float[2] x) => (float[2] y) { y = Upsample(x) }", opset=6)
    model.graph[0].op_type = "Experimental"
    with pytest.raises(ModelError, match=r"opset 6, opset 13 is needed"):
        RaiseOpset(13)(model)


def test_large_weights_are_not_copied_by_the_converter():
    model = with_weights(
        "g (float[2, 256] x, float[256, 256] w) => (float[2, 256] y) { y = MatMul(x, w) }", opset=11
    )
    weight = model.graph.initializers["w"].const_value
    RaiseOpset(21)(model)
    assert np.shares_memory(model.graph.initializers["w"].const_value.numpy(), weight.numpy())


def test_bfloat16_and_others_survive():
    model = with_weights("g (bfloat16[2] x, bfloat16[2] w) => (bfloat16[2] y) { y = Add(x, w) }")
    RaiseOpset(21)(model)
    assert model.graph.initializers["w"].dtype == ir.DataType.BFLOAT16
