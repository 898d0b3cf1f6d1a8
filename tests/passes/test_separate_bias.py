"""The bias of MatMulNBits in a node of its own computes the same."""

import numpy as np
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq.passes.separate_bias import SeparateBias

GRAPH = """
    g (float[3, 64] x, float[64, 32] w, float[32] wb) => (float[3, 32] y) {
        [op] y = Gemm(x, w, wb)
    }
    """


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("output", [True, False])
def test_a_bias_is_added_behind(symmetric, output):
    graph = GRAPH if output else GRAPH.replace("[op] y", "[op] a").replace("}", "y = Relu(a) }")
    weights = {"symmetric": symmetric, "algorithm": "rtn"}
    model = onnxq.quantize(
        with_weights(graph), preset="int4", target="ort-cpu", recipe={"weights": weights}
    ).model
    feed = random_feed(with_weights(graph))
    (before,) = compute(model, **feed)
    result = SeparateBias()(model)
    assert result.modified
    assert [node.op_type for node in model.graph][:2] == ["MatMulNBits", "Add"]
    assert len(model.graph[0].inputs) == (3 if symmetric else 4)
    assert [value.name for value in model.graph.outputs] == ["y"]
    np.testing.assert_array_equal(compute(model, **feed)[0], before)
    assert not SeparateBias()(model).modified
