"""Einsums by a constant that are a MatMul."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

from onnxq.passes.prepare.lower_einsum import LowerEinsum

GRAPH = (
    "g (float[{x}] x, float[{w}] w) => (float[n] y) "
    '{{ [mine] y = Einsum <equation = "{e}"> (x, w) }}'
)


def lowered(equation, sizes):
    x, w = equation.replace(" ", "").split("->")[0].split(",")
    shapes = (", ".join(str(sizes[letter]) for letter in term) for term in (x, w))
    text = GRAPH.format(x=next(shapes), w=next(shapes), e=equation)
    model = with_weights(text)
    feed = random_feed(model)
    before = compute(model, **feed)
    modified = LowerEinsum()(model).modified
    assert not LowerEinsum()(model).modified
    np.testing.assert_allclose(compute(model, **feed)[0], before[0], rtol=1e-5, atol=1e-5)
    return modified, model


SIZES = dict(zip("bektnmq", range(2, 9), strict=True))


@pytest.mark.parametrize(
    ("equation", "types"),
    [
        ("tk,ekn->etn", ["MatMul"]),
        ("etn,enk->etk", ["MatMul"]),
        ("btk , kn -> btn", ["MatMul"]),
        ("btk,nk->btn", ["Transpose", "MatMul"]),
        ("betk,ekn->betn", ["MatMul"]),
        ("tk,kn->tn", ["MatMul"]),
    ],
)
def test_products(equation, types):
    modified, model = lowered(equation, SIZES)
    assert modified
    assert [node.op_type for node in model.graph] == types
    assert model.graph[-1].name == "mine"
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    "equation",
    [
        "etk,te->tk",  # both indices of w are in x
        "tk,kn->nt",  # the result is transposed
        "btk,bkn->tn",  # two indices are summed over
        "bkt,kn->btn",  # x is transposed
        "tk,enk->etn",  # so is each matrix of a stack
        "tk,bekn->ebtn",  # and so are the stacks
        "btk,ekn->betn",  # x and w each have an index that the other lacks
        "tt,tn->tn",  # a diagonal
        "etk,ekn->tn",
    ],
)
def test_what_stays(equation):
    assert not lowered(equation, SIZES)[0]
