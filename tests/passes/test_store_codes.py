"""Weights in codes of ops that compute in float: small files, and no work at run time."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq.passes.remove_unused import RemoveUnused
from onnxq.passes.store_codes import StoreCodes, can_store

OPS = {
    "y = Conv <pads = [1, 1, 1, 1]> (x, w)": "[16, 32, 3, 3]",
    "y = Conv <pads = [1, 1, 1, 1], group = 32> (x, w)": "[32, 1, 3, 3]",
    "y = ConvTranspose (x, w)": "[32, 16, 2, 2]",
    "f = Flatten <axis = 3> (x) y = Gemm (f, w)": "[8, 24]",
    "f = Flatten <axis = 3> (x) y = Gemm <transB = 1> (f, w)": "[24, 8]",
    "y = MatMul (x, w)": "[8, 24]",
}
BRANCHES = (
    "g (bool c, float[8, 64] x, float[64, 64] w1, float[64, 64] w2) => (float[8, 64] y) "
    "{ y = If (c) < then_branch = t () => (float[8, 64] a) { [seen] a = MatMul(x, w1) }, "
    "else_branch = e () => (float[8, 64] b) { n = Neg(x) [unseen] b = MatMul(n, w2) } > }"
)


def optimized(model, path):
    """The op types and the floats of what ONNX Runtime makes of a model."""
    onnx.save(ir.to_proto(model), path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path / "m.onnx", options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path / "optimized.onnx").graph
    return [n.op_type for n in graph.node], {i.data_type for i in graph.initializer}


@pytest.mark.parametrize("nodes", OPS)
def test_onnx_runtime_makes_floats_of_the_codes_when_it_loads(nodes, tmp_path):
    weight, nodes = OPS[nodes], nodes.replace("y =", "[op] y =")
    model = with_weights(f"g (float[2, 32, 8, 8] x, float{weight} w) => (float[n] y) {{ {nodes} }}")
    feed = random_feed(model)
    (before,), types = compute(model, **feed), [node.op_type for node in model.graph]
    source = model.graph.initializers["w"].const_value.numpy()
    assert StoreCodes(["op", "other"])(model).modified
    RemoveUnused()(model)
    stored = {value.const_value.dtype for value in model.graph.initializers.values()}
    assert stored == {ir.DataType.INT8, ir.DataType.FLOAT}
    assert sum(v.const_value.nbytes for v in model.graph.initializers.values()) < 0.8 * (
        source.nbytes
    )
    noise = float(((compute(model, **feed)[0] - before) ** 2).sum())
    assert 10 * np.log10(float((before**2).sum()) / noise) > 35
    found, floats = optimized(model, tmp_path)
    assert found == types
    assert floats == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(
    "nodes",
    [
        "[op] y = MatMul(x, w) z = Neg(w)",
        "t = Transpose(w) [op] y = MatMul(x, t)",
        "[op] y = MatMul(w, x)",
        "[op] y = Add(x, w)",
    ],
)
def test_other_weights_stay_as_they_are(nodes):
    model = with_weights(f"g (float[8, 8] x, float[8, 8] w) => (float[8, 8] y) {{ {nodes} }}")
    (node,) = (node for node in model.graph if node.name == "op")
    assert not can_store(node)
    assert not StoreCodes(["op"])(model).modified


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_a_branch_that_no_sample_takes_is_small_all_the_same(target):
    model = with_weights(BRANCHES)
    feeds = [{**random_feed(model, seed), "c": np.array(True)} for seed in range(3)]
    result = onnxq.quantize(model, preset="int8", target=target, calibration=feeds)
    (unseen,) = (d for d in result.report.decisions if d.node == "unseen")
    assert unseen.action == "float"
    assert unseen.reason.startswith("no calibration sample tells the range of 'n'")
    assert ("its weight is stored in int8" in unseen.reason) == (target == "ort-cpu")
    if target == "ort-cpu":
        assert result.report.weight_bytes["after"] < 0.3 * result.report.weight_bytes["before"]
    for taken in (True, False):
        feed = {**feeds[0], "c": np.array(taken)}
        (expected,), (found,) = compute(model, **feed), compute(result.model, **feed)
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_unused_weights_of_branches_are_removed():
    model = with_weights(BRANCHES)
    inner = next(iter(model.graph)).attributes["then_branch"].as_graph()
    tensor = ir.tensor(np.ones(4, np.float32), name="left")
    inner.register_initializer(ir.Value(name="left", const_value=tensor))
    assert RemoveUnused()(model).modified
    assert not inner.initializers
    assert not RemoveUnused()(model).modified
