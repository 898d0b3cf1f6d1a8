"""Which ops share their codes, and what these are made for."""

import numpy as np
from graphs import with_weights

from onnxq import pipeline
from onnxq.passes.sharing import by_stored_weight, common_moment

GRAPH = """
    g (float[n, 64] x, float[64, 64] w, float[64, 64] w2) => (float[n, 64] y)
    {
        [first] hidden = MatMul(x, w)
        [second] again = MatMul(hidden, w)
        [third] y = MatMul(again, w2)
    }
"""


def plan(**recipe):
    model = with_weights(GRAPH, 21)
    return pipeline.plan(model, target="ort-cpu", preset="int4", recipe=recipe)


def test_ops_that_read_one_weight_share_it():
    groups = by_stored_weight(plan().ops)
    assert [[op.node for op in group] for group in groups] == [["first", "second"], ["third"]]


def test_ops_that_quantize_it_in_different_ways_do_not():
    other = plan(rules=[{"match": "second", "weights": {"block_size": 16}}])
    assert [[op.node for op in group] for group in by_stored_weight(other.ops)] == [
        ["first"],
        ["second"],
        ["third"],
    ]


def test_the_moments_of_all_that_a_weight_is_multiplied_by_are_added():
    planned = plan()
    shared, alone = by_stored_weight(planned.ops)
    moments = {"x": np.eye(64), "hidden": 2 * np.ones((64, 64))}
    found = common_moment(shared, planned.inputs, moments)
    np.testing.assert_array_equal(found, np.eye(64) + 2)
    assert common_moment(alone, planned.inputs, moments) is None
