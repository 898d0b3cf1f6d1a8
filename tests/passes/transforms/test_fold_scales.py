"""AWQ: the float model stays what it is, and the codes do its outputs less harm."""

import numpy as np
import pytest
from graphs import compute, with_weights

import onnxq
from onnxq import targets
from onnxq.passes.plan import make_plan
from onnxq.passes.transforms.fold_scales import fold_scales
from onnxq.recipe import resolve

GRAPH = """
g (float[n, 64] x, float[64] w_scale, float[64] w_shift, float[64, 96] w_up, float[96, 48] w_down,
   float[64, 32] w_other) => (float[n, 48] y, float[n, 32] z)
{
    normal = LayerNormalization(x, w_scale, w_shift)
    [up] hidden = MatMul(normal, w_up)
    positive = Relu(hidden)
    [down] y = MatMul(positive, w_down)
    [other] z = MatMul(normal, w_other)
}
"""
SCALE = np.random.default_rng(7).lognormal(0, 1.5, 64)


def model():
    return with_weights(GRAPH, 21, w_scale=SCALE)


def data(count, seed):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(32, 64)).astype(np.float32)} for _ in range(count)]


def planned(given, algorithm="awq", **recipe):
    recipe = resolve("int4", {"weights": {"algorithm": algorithm}, **recipe}, has_data=True)
    return make_plan(given, recipe, targets.get("ort-cpu"))


def moments(plan, given):
    """Of made-up inputs that differ in size."""
    sizes = {
        name: SCALE if name == "normal" else np.linspace(1, 30, 96) for name in plan.inputs.values()
    }
    return {name: np.diag(size**2) for name, size in sizes.items()}


def test_the_float_model_computes_the_same():
    own = model()
    plan = planned(own)
    before = moments(plan, own)
    again, after = fold_scales(own, plan, before)
    assert {op.node for op in again.ops} == {"up", "down", "other"}
    assert after.keys() == before.keys()
    assert any(not np.array_equal(after[name], before[name]) for name in before)
    assert "Mul" not in [node.op_type for node in own.graph]
    (feed,) = data(1, 3)
    for one, two in zip(compute(model(), **feed), compute(own, **feed), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


BLOCK = """
g (float[2, 5, 64] x, float[64] w_scale, float[64, 32] w_value, float[64, 64] w_out,
   float[64, 96] w_gate, float[64, 96] w_up, float[96, 64] w_down, float[2, 4, 5, 5] w_mix)
   => (float[2, 5, 64] y)
<int64[4] split = {0, 0, 2, 16}, int64[1] two = {2}, int64[5] times = {2, 2, 2, 5, 16},
 int64[4] flat = {2, 4, 5, 16}, int64[3] join = {0, 0, 64}>
{
    normal = RMSNormalization(x, w_scale)
    [value] v1 = MatMul(normal, w_value)
    v2 = Reshape(v1, split)
    v3 = Transpose<perm = [0, 2, 1, 3]>(v2)
    v4 = Unsqueeze(v3, two)
    v5 = Expand(v4, times)
    v6 = Reshape(v5, flat)
    mixed = MatMul(w_mix, v6)
    back = Transpose<perm = [0, 2, 1, 3]>(mixed)
    joined = Reshape(back, join)
    [out] h = MatMul(joined, w_out)
    [gate] gate = MatMul(h, w_gate)
    bent = Sigmoid(gate)
    [up] up = MatMul(h, w_up)
    both = Mul(bent, up)
    [down] y = MatMul(both, w_down)
}
"""


def test_past_attention_and_gates():
    own, given = (with_weights(BLOCK, 23, w_scale=SCALE) for _ in range(2))
    plan = planned(own)
    before = {
        name: np.diag(np.random.default_rng(5).lognormal(0, 2, 96 if name == "both" else 64))
        for name in plan.inputs.values()
    }
    _, after = fold_scales(own, plan, before)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"normal", "joined", "h", "both"}
    scales = np.sqrt(np.diag(before["joined"]) / np.diag(after["joined"])).reshape(2, 2, 16)
    np.testing.assert_allclose(scales[:, 0], scales[:, 1])  # of heads that share values
    assert len(own.graph) == len(given.graph)
    feed = {"x": np.random.default_rng(3).normal(size=(2, 5, 64)).astype(np.float32)}
    (expected,), (found,) = compute(given, **feed), compute(own, **feed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_matrix_that_is_a_table_too_stays_one():
    graph = """
    g (int64[n] ids, float[64] w_scale, float[1100, 64] w_table) => (float[n, 1100] y)
    {
        x = Gather(w_table, ids)
        normal = RMSNormalization(x, w_scale)
        [head] y = Gemm<transB = 1>(normal, w_table)
    }
    """
    own = with_weights(graph, 23, w_scale=SCALE)
    plan = planned(own)
    assert [op.tied for op in plan.ops] == [True, True]
    before = {"normal": np.diag(SCALE**2)}
    _, after = fold_scales(own, plan, before)
    np.testing.assert_array_equal(after["normal"], before["normal"])


@pytest.mark.parametrize("change", ["another algorithm", "an op in float"])
def test_what_is_read_otherwise_stays(change):
    own = model()
    rule = {"match": "other", "keep_float": True}
    plan = planned(own, "gptq") if change == "another algorithm" else planned(own, rules=[rule])
    before = moments(plan, own)
    _, after = fold_scales(own, plan, before)
    np.testing.assert_array_equal(after["normal"], before["normal"])


@pytest.mark.parametrize("symmetric", [True, False])
def test_outputs_are_nearer_to_float_than_without(symmetric):
    given = {"target": "ort-cpu", "preset": "int4"}
    noises = []
    (feed,) = data(1, 99)
    for algorithm, calibration in (("auto", None), ("awq", data(8, 1))):
        recipe = {"weights": {"symmetric": symmetric, "algorithm": algorithm}}
        result = onnxq.quantize(model(), recipe=recipe, calibration=calibration, **given)
        pairs = zip(compute(model(), **feed), compute(result.model, **feed), strict=True)
        noises.append([float(np.square(a - b).mean()) for a, b in pairs])
    assert all(after < 0.9 * before for before, after in zip(*noises, strict=True))
