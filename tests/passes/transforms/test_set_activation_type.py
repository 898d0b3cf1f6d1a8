"""The type of activations changes, and what a model computes and takes does not."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, with_weights
from onnx.reference import ReferenceEvaluator

from onnxq import onnxfile
from onnxq.errors import ModelError
from onnxq.passes.casts import CastTensor
from onnxq.passes.prepare.name_everything import NameEverything
from onnxq.passes.transforms.set_activation_type import SetActivationType

FLOAT, HALF, BFLOAT = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
RNG = np.random.default_rng(0)

BLOCK = """
    g (float[n, 8] x, float[8, 8] w1, float[8, 8] w2, float[8] w_bias) => (float[n, 8] y) {
        hidden = MatMul(x, w1)
        shifted = Add(hidden, w_bias)
        shares = Softmax(shifted)
        mixed = MatMul(shares, w2)
        y = Add(mixed, w_bias)
    }
    """


def types(model):
    return {v.name: v.dtype for node in model.graph for v in node.outputs}


def changed(graph, dtype=HALF, **weights):
    model = with_weights(graph, 21, **weights)
    expected = with_weights(graph, 21, **weights)
    NameEverything()(model)
    change = SetActivationType(dtype, set())
    assert change(model).modified
    assert not SetActivationType(dtype, set())(model).modified
    return model, expected, change.kept


def test_activations_and_weights_are_halves():
    model, expected, kept = changed(BLOCK)
    found = types(model)
    assert found["hidden"] == found["mixed"] == HALF
    assert found["shares"] == found["shifted"] == FLOAT  # the sum is for the softmax alone
    assert len(kept) == 2
    weights = model.graph.initializers
    assert [weights[name].dtype for name in ("w1", "w2")] == [HALF, HALF]
    assert isinstance(weights["w1"].const_value, CastTensor)
    assert [model.graph.inputs[0].dtype, model.graph.outputs[0].dtype] == [FLOAT, FLOAT]
    assert model.graph.outputs[0].name == "y"
    x = RNG.normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_allclose(compute(model, x=x)[0], compute(expected, x=x)[0], atol=2e-3)


def test_what_bfloat16_computes():
    model, expected, _ = changed(BLOCK, BFLOAT)
    x = RNG.normal(size=(5, 8)).astype(np.float32)
    found, whole = (
        ReferenceEvaluator(ir.to_proto(m)).run(None, {"x": x}) for m in (model, expected)
    )
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[0], whole[0], atol=0.01)


def test_a_constant_that_is_read_in_both_types_is_there_twice():
    model, _, _ = changed(BLOCK)
    weights = model.graph.initializers
    assert {name: weights[name].dtype for name in weights if "bias" in name} == {
        "w_bias": HALF,
        "w_bias_float": FLOAT,
    }


def test_nothing_is_read_before_it_is_written():
    reads = []

    def read():
        reads.append(1)
        return ir.tensor(np.ones((8, 8), np.float32))

    model = with_weights(
        "g (float[n, 8] x, float[8, 8] w) => (float[n, 8] y) { [p] y = MatMul(x, w) }"
    )
    weight = model.graph.initializers["w"]
    weight.const_value = ir.LazyTensor(read, FLOAT, ir.Shape([8, 8]), name="w")
    SetActivationType(HALF, {"p"})(model)
    assert onnxfile.stored_bytes(model) == 128
    assert not reads


@pytest.mark.parametrize("dtype", [HALF, BFLOAT])
def test_caches_get_the_new_type(dtype):
    model, expected, _ = changed(
        """
        g (float[b, 2, n, 4] x, float[b, 2, past, 4] cache, float[b, n] other)
            => (float[b, 2, total, 4] present, float[b, 2, total, 4] y, float[b, m] longer) {
            present = Concat<axis = 2>(cache, x)
            y = Neg(present)
            longer = Concat<axis = 1>(other, other)
        }
        """,
        dtype,
    )
    graph = model.graph
    assert [value.dtype for value in graph.inputs] == [FLOAT, dtype, FLOAT]
    assert [value.dtype for value in graph.outputs] == [dtype, FLOAT, FLOAT]
    assert [value.name for value in graph.outputs] == ["present", "y", "longer"]
    if dtype == HALF:
        feed = {
            "x": RNG.normal(size=(1, 2, 1, 4)).astype(np.float32),
            "cache": RNG.normal(size=(1, 2, 3, 4)).astype(np.float16),
            "other": np.ones((1, 2), np.float32),
        }
        found = compute(model, **feed)
        whole = compute(expected, **feed | {"cache": feed["cache"].astype(np.float32)})
        for a, b in zip(found, whole, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)


def test_halves_become_floats():
    graph = BLOCK.replace("float[", "float16[")
    model, expected, kept = changed(graph, FLOAT)
    assert not kept
    assert set(types(model).values()) == {FLOAT, HALF}  # the output stays what it was
    assert [node.op_type for node in model.graph].count("Cast") == 2
    x = RNG.normal(size=(5, 8)).astype(np.float16)
    np.testing.assert_allclose(compute(model, x=x)[0], compute(expected, x=x)[0], atol=2e-3)


def test_types_that_nodes_name():
    model, expected, _ = changed(
        """
        g (float[n, 4] x, int64[k] shape) => (float[n, 4] y, float[n, 4] z) {
            ones = ConstantOfShape<value = float[1] {1.0}>(shape)
            bool = Cast<to = 9>(x)
            back = Cast<to = 1>(bool)
            z = Cast<to = 1>(x)
            sum = Add(x, back)
            y = Add(sum, ones)
        }
        """
    )
    feed = {"x": np.array([[1, 0, -2, 3]], np.float32), "shape": np.array([1, 4])}
    for a, b in zip(compute(model, **feed), compute(expected, **feed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_body_is_refused():
    model = with_weights(
        """
        g (float[4] x, bool c) => (float[4] y) {
            y = If(c) <then_branch = a () => (float[4] p) { p = Neg(x) },
                       else_branch = b () => (float[4] q) { q = Identity(x) }>
        }
        """
    )
    with pytest.raises(ModelError, match=r"\(If\) has a body"):
        SetActivationType(HALF, set())(model)
