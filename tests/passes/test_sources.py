"""Channels are followed back through what joins, cuts and moves them."""

import numpy as np
import pytest
from graphs import with_weights

from onnxq.passes.sources import sources

# The head of a detector: boxes and scores joined at each scale, joined over scales, cut again.
HEAD = """
g (float[n, 4, 8, 8] b1, float[n, 6, 8, 8] s1, float[n, 4, 4, 4] b2, float[n, 6, 4, 4] s2,
   int64[3] r, int64[2] p) => (float[n, 10, m] y) <float[n, 10, 8, 8] j1, float[n, 10, 4, 4] j2,
   float[n, 10, a] f1, float[n, 10, b] f2, float[n, 10, c] f, float[n, 4, c] box,
   float[n, 6, c] score, float[n, 4, c] scaled, float[n, 6, c] sure> {
    nb1 = Neg(b1) ns1 = LeakyRelu(s1) nb2 = LeakyRelu(b2) ns2 = LeakyRelu(s2)
    j1 = Concat<axis = 1>(nb1, ns1) j2 = Concat<axis = 1>(nb2, ns2)
    f1 = Reshape(j1, r) f2 = Reshape(j2, r) f = Concat<axis = 2>(f1, f2)
    box, score = Split<axis = 1>(f, wp) scaled = Add(box, box) sure = Sigmoid(score)
    y = Concat<axis = 1>(scaled, sure) }
"""


def head():
    model = with_weights(HEAD.replace("int64[2] p", "int64[2] wp"), wp=np.array([4, 6]))
    for node in model.graph:
        for value, source in zip(node.outputs[:1], node.inputs[:1], strict=True):
            if node.op_type in ("Neg", "LeakyRelu"):
                value.shape = source.shape
    return model


@pytest.mark.parametrize(
    ("channels", "found"),
    [([0, 3], {"scaled"}), ([4], {"ns1", "ns2"}), ([3, 9], {"scaled", "ns1", "ns2"})],
)
def test_scores_come_from_the_scores_of_every_scale(channels, found):
    (y,) = head().graph.outputs
    mask = np.isin(np.arange(10), channels)
    assert {value.name for value in sources(y, 1, mask)} == found


def test_what_cannot_be_told_apart_is_left():
    (y,) = head().graph.outputs
    assert sources(y, 2, np.ones(80, bool)) == [y.producer().inputs[0], *sources_of_sure(y)]
    y.producer().inputs[0].shape = None
    assert sources(y, 1, np.ones(10, bool)) == [y]


def sources_of_sure(y):
    sure = y.producer().inputs[1]
    return [sure.producer().inputs[0]]
