"""Parts of stacks of weights as weights of their own."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

from onnxq import io
from onnxq.passes.prepare import prepare
from onnxq.passes.prepare.unstack import Unstack
from onnxq.weightfile import WeightInFile

GRAPH = "g (float[3, 8] x, float[4, 8, 8] w, {more}) => (float[n, m] y) {{ {nodes} }}"
INTEGERS = {
    "w0": np.array(0), "wl": np.array(-1), "w1": np.array([1]), "w3": np.array([3]),
    "wa": np.array([0]), "wt": np.array([2]), "ws": np.array([1, 3]), "wx": np.array([-3]),
}  # fmt: skip
MORE = ", ".join(
    f"int64{list(each.shape) if each.ndim else ''} {name}" for name, each in INTEGERS.items()
)


def unstacked(nodes):
    """Whether anything changed, the op types then, and the constants of floats."""
    model = with_weights(GRAPH.format(nodes=nodes, more=MORE), 18, **INTEGERS)
    feed = random_feed(model)
    before = compute(model, **feed)
    modified = Unstack()(model).modified
    assert not Unstack()(model).modified
    for expected, found in zip(before, compute(model, **feed), strict=True):
        np.testing.assert_array_equal(found, expected)
    constants = model.graph.initializers.values()
    shapes = [v.const_value.shape.numpy() for v in constants if v.dtype == ir.DataType.FLOAT]
    return modified, [node.op_type for node in model.graph], shapes


@pytest.mark.parametrize(
    ("nodes", "shapes"),
    [
        ("a = Gather(w, w0) y = MatMul(x, a)", [(8, 8)]),
        ("a = Gather <axis = 0> (w, wl) b = Gather(w, w0) h = MatMul(x, a) y = MatMul(h, b)",
         [(8, 8)] * 2),
        ("a = Gather(w, w0) b = Gather(w, w0) h = MatMul(x, a) y = MatMul(h, b)", [(8, 8)]),
        ("a = Slice(w, w1, wt, wa) b = Squeeze(a, wa) y = MatMul(x, b)", [(8, 8)]),
        ("a = Slice(w, wx, wt, wa, w1) c = Squeeze(a) y = MatMul(x, c)", [(8, 8)]),
        ("a, b = Split <num_outputs = 2> (w) c = Gather(a, wl) d = Gather(b, w0) "
         "h = MatMul(x, c) y = MatMul(h, d)", [(8, 8)] * 2),
        ("a, b = Split(w, ws) c = Squeeze(a, wx) d = Gather(b, w0) h = MatMul(x, c) "
         "y = MatMul(h, d)", [(8, 8)] * 2),
    ],
)  # fmt: skip
def test_parts(nodes, shapes):
    modified, types, found = unstacked(nodes)
    assert modified
    assert set(types) == {"MatMul"}
    assert found == shapes


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Gather(w, w0) b = ReduceMax(w, wa) c = Squeeze(b) h = MatMul(x, a) y = MatMul(h, c)",
        "a = Gather <axis = 1> (w, w0) y = MatMul(a, a)",
        "i = ArgMax <keepdims = 0> (x) j = Gather(i, w0) a = Gather(w, j) y = MatMul(x, a)",
        "a = Slice(w, w1, w3, wt) c = Gather(a, w0) y = MatMul(x, c)",
        "a = Slice(w, wa, w3, wa, wt) c = Gather(a, w0) y = MatMul(x, c)",
    ],
)
def test_what_is_left(nodes):
    text = nodes.replace("MatMul(a, a)", "Identity(a)")
    model = with_weights(GRAPH.format(nodes=text, more=MORE), 18, **INTEGERS)
    assert not Unstack()(model).modified


@pytest.mark.parametrize("external_data", [False, True])
def test_parts_stay_in_the_file(tmp_path, external_data):
    model = with_weights(
        "g (float[3, 512] x, float[2, 1024, 512] w, int64 wi) => (float[3, 1024] y) "
        "{ a = Gather(w, wi) y = Gemm <transB = 1> (x, a) }",
        wi=np.array(1),
    )
    io.save(model, tmp_path / "m.onnx", external_data=external_data)
    loaded = io.load(tmp_path / "m.onnx")
    whole = loaded.graph.initializers["w"].const_value.numpy()
    prepare(loaded)
    (part,) = (v.const_value for v in loaded.graph.initializers.values())
    assert isinstance(part, ir.ExternalTensor if external_data else WeightInFile)
    np.testing.assert_array_equal(part.numpy(), whole[1])
