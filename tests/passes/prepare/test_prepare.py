"""Bringing exports into the one form that planning expects."""

import models
import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

from onnxq import io
from onnxq.passes.prepare import prepare

SIZES = {"ppocr-rec": [1, 3, 48, 160], "ppocr-det": [1, 3, 96, 64], "ppocr-cls": [1, 3, 48, 192]}


def test_constants_become_initializers():
    model = with_weights(
        "g (float[1, 2] x) => (float[1, 2] y) "
        "{ k = Constant <value = float[2, 2] {1.0, 2.0, 3.0, 4.0}> () y = MatMul(x, k) }",
        opset=11,
    )
    prepare(model)
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert model.opset_imports == {"": 13}
    assert model.graph[0].inputs[1].is_initializer()


def test_functions_are_inlined():
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 17, "mine" : 1]>
        g (float[2, 3] x) => (float[2, 3] y) { y = mine.twice(x) }
        <domain: "mine", opset_import: ["" : 17]>
        twice (a) => (b) { r = Relu(a) b = Add(r, r) }
    """)
    feed = random_feed(model)
    before = compute(model, **feed)
    prepare(model)
    assert [node.op_type for node in model.graph] == ["Relu", "Add"]
    assert model.opset_imports == {"": 17}
    np.testing.assert_array_equal(compute(model, **feed), before)


def test_weights_in_branches_move_to_the_main_graph():
    model = with_weights(
        "g (bool c, float[2] x) => (float[2] y) { y = If (c) < "
        "then_branch = t () => (float[2] a) <float[2] k = {3.0, 4.0}> { a = Mul(x, k) }, "
        "else_branch = e () => (float[2] b) { b = Neg(x) } > }"
    )
    prepare(model)
    assert set(model.graph.initializers) == {"k"}


def test_unused_nodes_and_weights_go():
    model = with_weights(
        "g (float[2] x, float[2] w) => (float[2] y) { unused = Add(x, w) y = Relu(x) }"
    )
    prepare(model)
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert not model.graph.initializers


@pytest.mark.parametrize("name", [name for name in models.names() if name != "smollm2"])
@pytest.mark.parametrize("opset", [13, 21])
def test_a_real_model_computes_the_same(name, opset):
    path = models.path(name)
    model = io.load(path)
    prepare(model, opset)
    nodes = len(model.graph)
    assert model.opset_imports[""] >= opset
    assert not any(node.op_type == "Constant" for node in model.graph)
    prepare(model, opset)
    assert len(model.graph) == nodes
    feed = real_feed(model, SIZES.get(name))
    published = io.load(path)
    for expected, found in zip(compute(published, **feed), compute(model, **feed), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def real_feed(model, size):
    generator = np.random.default_rng(5)
    feed = {}
    for value in model.graph.inputs:
        dims = {"batch_size": 1, "batch": 1, "sequence": 7, "height": 64, "width": 64}
        shape = size or [d if isinstance(d, int) else dims.get(d.value, 1) for d in value.shape]
        if value.name == "input":  # of silero-vad: 512 samples of sound, and 64 before them
            shape = [1, 576]
        if value.dtype == ir.DataType.FLOAT:
            feed[value.name] = generator.uniform(-1, 1, shape).astype(np.float32)
        elif value.name == "sr":
            feed[value.name] = np.array(16000, np.int64)
        else:
            high = 2 if "mask" in value.name or "type" in value.name else 200
            feed[value.name] = generator.integers(0, high, shape).astype(value.dtype.numpy())
    return feed
