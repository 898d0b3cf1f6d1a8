"""An If whose condition is known becomes the branch it takes."""

import numpy as np
import pytest
from graphs import compute, with_weights

from onnxq.passes.prepare.fold_if import FoldIf

X = np.array([-1.0, 2.0], np.float32)


def branches(then, otherwise, output="y"):
    return (
        f"{output} = If (w) < then_branch = t () => (float[2] a) {{ {then} }}, "
        f"else_branch = e () => (float[2] b) {{ {otherwise} }} >"
    )


def fold(nodes, taken, **weights):
    model = with_weights(
        f"g (bool w, float[2] w2, float[2] x) => (float[2] y) {{ {nodes} }}",
        w=np.array(taken),
        **weights,
    )
    before = compute(model, x=X)
    assert FoldIf()(model).modified
    assert not FoldIf()(model).modified
    np.testing.assert_array_equal(compute(model, x=X), before)
    assert model.graph.outputs[0].name == "y"
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(("taken", "op"), [(True, "Relu"), (False, "Neg")])
def test_the_branch_taken_stays(taken, op):
    assert fold(branches("a = Relu(x)", "b = Neg(x)"), taken) == [op]


def test_nodes_before_and_behind_keep_their_order():
    inner = branches("s = Abs(h) a = Sqrt(s)", "b = Neg(h)", output="i")
    assert fold(f"h = Exp(x) {inner} y = Relu(i)", taken=True) == ["Exp", "Abs", "Sqrt", "Relu"]


def test_an_if_in_an_if():
    inner = branches("a = Relu(x)", "b = Neg(x)", output="a2").replace(
        "(float[2] a)", "(float[2] a)"
    )
    outer = (
        "y = If (w) < then_branch = o () => (float[2] a2) { " + inner + " }, "
        "else_branch = p () => (float[2] c) { c = Exp(x) } >"
    )
    assert fold(outer, taken=True) == ["Relu"]


def test_a_branch_that_returns_a_graph_input():
    assert fold(branches("a = Identity(x)", "b = Neg(x)"), taken=True) == ["Identity"]


def test_an_unknown_condition_stays():
    model = with_weights(
        "g (bool c, float[2] x) => (float[2] y) { "
        + branches("a = Relu(x)", "b = Neg(x)").replace("(w)", "(c)")
        + " }"
    )
    assert not FoldIf()(model).modified


def test_initializers_of_the_branch_move_with_it():
    nodes = branches("a = Mul(x, k)", "b = Neg(x)").replace(
        "t () => (float[2] a)", "t () => (float[2] a) <float[2] k = {3.0, 4.0}>"
    )
    assert fold(nodes, taken=True) == ["Mul"]
