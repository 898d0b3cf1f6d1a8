"""Rotations: the model computes what it did, and no channel of its products' inputs is huge."""

import numpy as np
import onnx_ir as ir
import pytest
import smollm2_kv
from graphs import compute, with_weights
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxq
from onnxq import runtime, targets
from onnxq.calib.feeds import Sample
from onnxq.calib.taps import Taps
from onnxq.errors import ModelError
from onnxq.passes.plan import make_plan
from onnxq.passes.prepare import prepare
from onnxq.passes.transforms.rotate import rotate
from onnxq.recipe import resolve

WIDTH = 32
GAIN = np.random.default_rng(3).lognormal(0, 1.5, WIDTH)


def norm(source, name):
    """An RMSNorm in parts, as torch writes it."""
    return f"""
    sq_{name} = Pow({source}, w_two)
    mean_{name} = ReduceMean(sq_{name}, axes)
    eps_{name} = Add(mean_{name}, w_eps)
    root_{name} = Sqrt(eps_{name})
    inverse_{name} = Reciprocal(root_{name})
    even_{name} = Mul({source}, inverse_{name})
    {name} = Mul(w_gain_{name}, even_{name})
"""


def in_parts(head="[head] y = MatMul(last, w_head)", inside="", outputs="float[n, 40] y"):
    """A block of two layers: an embedding and a bias come in, a head goes out."""
    return f"""
g (int64[n] ids, float[100, 32] w_table, float[32] w_gain_first, float[32] w_gain_second,
   float[32] w_gain_last, float w_two, float w_eps, float[32, 48] w_up, float[48, 32] w_down,
   float[32] w_bias, float[64, 32] w_wide, float[64, 32] w_narrow, float[32] w_shift,
   float[32, 40] w_head) => ({outputs})
<int64[1] axes = {{-1}}>
{{
    x = Gather(w_table, ids)
    {norm("x", "first")}
    [up] up = MatMul(first, w_up)
    wave = Tanh(up)
    [down] down = MatMul(wave, w_down)
    biased = Add(down, w_bias)
    x1 = Add(x, biased)
    {norm("x1", "second")}
    [wide] wide = Gemm<transB = 1>(second, w_wide)
    bent = Tanh(wide)
    [narrow] narrow = Gemm(bent, w_narrow, w_shift)
    x2 = Add(narrow, x1)
    {inside}
    {norm("x2", "last")}
    {head}
}}
"""


TIED = "[head] y = Gemm<transB = 1>(last, w_table)"
FEED = {"ids": np.random.default_rng(1).integers(0, 100, 24)}


def made(graph, **given):
    numbers = {
        "w_two": np.array(2.0),
        "w_eps": np.array(1e-5),
        **{f"w_gain_{name}": GAIN for name in ("first", "second", "last")},
    }
    model = with_weights(graph, 21, **numbers | given)
    with_types = ir.from_proto(ir.to_proto(model))
    prepare(with_types, 21)
    return with_types


def planned(model, algorithm="auto", **recipe):
    given = {"weights": {"algorithm": algorithm}, **recipe}
    return make_plan(model, resolve("int4", given, has_data=False), targets.get("ort-cpu"))


def measured(model, names, feed=FEED):
    """The second moments of values."""
    found = Taps(model, names).run(Sample("a feed", feed))
    rows = [taps[0].reshape(-1, taps[0].shape[-1]).astype(np.float64) for taps in found]
    return {name: each.T @ each for name, each in zip(names, rows, strict=True)}


@pytest.mark.parametrize(
    ("graph", "weights", "at_run_time"),
    [
        (in_parts(), 5, []),
        (in_parts(TIED, outputs="float[n, 100] y"), 4, ["x", "even_last"]),
        (in_parts(outputs="float[n, 40] y, float[n, 32] x2"), 5, ["x2"]),
        (in_parts(inside="z = Neg(x1)", outputs="float[n, 40] y, float[n, 32] z"), 5, ["x1"]),
        (in_parts("y = Relu(last)", outputs="float[n, 32] y"), 4, ["even_last"]),
    ],
    ids=["apart", "tied", "an output", "read otherwise", "no head"],
)
def test_the_model_computes_the_same(graph, weights, at_run_time):
    model = made(graph)
    before = compute(model, **FEED)
    plan = planned(model, rotate=True)
    moments = measured(model, list(dict.fromkeys(plan.inputs[op.node] for op in plan.products)))
    turned, now = rotate(model, plan, moments)
    assert f"in {weights} weights" in turned.rotation
    assert turned.rotation.endswith(" and ".join(at_run_time) if at_run_time else "weights")
    for one, two in zip(before, compute(model, **FEED), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert {op.node for op in turned.ops} == {op.node for op in plan.ops}
    after = measured(model, list(dict.fromkeys(turned.inputs[o.node] for o in plan.products)))
    for name, moment in after.items():
        limit = 1e-5 * np.abs(moment).max()
        np.testing.assert_allclose(now[name], moment, rtol=1e-3, atol=limit)


def test_channels_are_alike():
    model = made(in_parts())
    plan = planned(model, rotate=True)
    turned, now = rotate(model, plan, measured(model, [plan.inputs["wide"]]))
    before, after = (
        np.sqrt(np.diag(each)) for each in (measured(made(in_parts()), ["second"])["second"],
                                            now[turned.inputs["wide"]])
    )  # fmt: skip
    assert before.max() / np.median(before) > 5
    assert after.max() / np.median(after) < 3
    assert "Mul" in {node.op_type for node in model.graph}
    assert sum(node.op_type == "Mul" for node in model.graph) == 3  # by 1 / rms, no more by gains


@given(st.integers(0, 99), st.sampled_from([12, 16, 20, 64]), st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_moments_of_any_factors(seed, width, hidden):
    rng = np.random.default_rng(seed)
    gain = rng.lognormal(0, 2, width)
    gain[rng.permutation(width)[:hidden]] = 0
    graph = """
    g (float[n, W] x, float[W, W] w_in, float[W] w_gain, float[W, 8] w_out) => (float[n, 8] y)
    {
        [in] h = MatMul(x, w_in)
        normal = RMSNormalization<axis = -1>(h, w_gain)
        [out] y = MatMul(normal, w_out)
    }
    """.replace("W]", f"{width}]").replace("[W", f"[{width}")
    rows = {"x": rng.normal(size=(50, width)).astype(np.float32)}
    model = with_weights(graph, 23, w_gain=gain)
    prepare(model, 23)
    plan = planned(model, rotate=True)
    before = compute(model, **rows) if width else None
    _, now = rotate(model, plan, measured(model, ["normal"], rows))
    np.testing.assert_allclose(compute(model, **rows)[0], before[0], rtol=1e-3, atol=1e-4)
    # What the factors hide is not known; its mean is, which keeps the sum of the squares.
    moment = now["normal"]
    exact = measured(model, ["normal"], rows)["normal"]
    assert np.linalg.eigvalsh(moment).min() > -1e-3 * np.trace(moment) / width
    assert np.trace(moment) == pytest.approx(np.trace(exact), rel=0.5)


CONFIG = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 1e4},
}


def llama(dtype, tokens):
    """As the builder of onnxruntime-genai writes it, with random weights."""
    rng = np.random.default_rng(0)
    sizes = {"q_proj": (48, 48), "k_proj": (16, 48), "v_proj": (16, 48), "o_proj": (48, 48)}
    sizes = {f"self_attn.{name}": size for name, size in sizes.items()}
    sizes |= {"mlp.gate_proj": (96, 48), "mlp.up_proj": (96, 48), "mlp.down_proj": (48, 96)}
    weights = {
        f"model.layers.{layer}.{name}.weight": rng.normal(0, 0.2, size)
        for layer in range(2)
        for name, size in sizes.items()
    }
    norms = [f"layers.{i}.{n}_layernorm" for i in range(2) for n in ("input", "post_attention")]
    for name in (*norms, "norm"):
        weights[f"model.{name}.weight"] = rng.lognormal(0, 1, 48)
    weights["model.embed_tokens.weight"] = rng.normal(size=(tokens, 48))
    model = smollm2_kv.build(CONFIG | {"vocab_size": tokens}, weights, dtype)
    ids = rng.integers(0, 96, (1, 12))
    cache = np.zeros((1, 1, 0, 16), dtype)
    caches = [value.name for value in model.graph.inputs][2:]
    feed = {"input_ids": ids, "attention_mask": np.ones((1, 12), np.int64)}
    return model, feed | dict.fromkeys(caches, cache)


@pytest.mark.parametrize(
    ("tokens", "where"),
    [
        (96, "in 11 weights"),  # the head has a copy of the table
        (1536, "in 10 weights, at run time at /model/embed_tokens/Gather_output and /model/norm/"),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 0.02)])
def test_graphs_of_fused_norms_and_sums(dtype, tolerance, tokens, where):
    model, feed = llama(dtype, tokens)
    prepare(model, 21)
    before = compute(model, **feed)
    plan = planned(model, rotate=True)
    turned, _ = rotate(model, plan, {})
    assert where in turned.rotation
    for one, two in zip(before, compute(model, **feed), strict=True):
        assert two.dtype == dtype
        off = two.astype(np.float64) - one
        assert np.linalg.norm(off) < tolerance * np.linalg.norm(one.astype(np.float64))


@pytest.mark.parametrize("dtype", [None, "fp16"])
def test_a_tied_head_in_4_bits(dtype):
    model, feed = llama(np.float32, 1536)
    (expected, *_) = compute(model, **feed)
    result = onnxq.quantize(
        model, preset="int4", target="ort-cpu", calibration=[feed] * 2, activation_dtype=dtype
    )
    assert result.report.rotation.startswith("rotated: ")
    assert result.report.counts()["int4"] == 12
    session = runtime.session(result.model)
    found = session.run(["logits"], runtime.fitted(session, feed))[0]
    assert np.linalg.norm(found - expected) < 0.4 * np.linalg.norm(expected)


REFUSED = {
    "mean": (
        "g (float[n, 32] x, float[32] w_gain, float[32] w_shift, float[32, 32] w) => (float y) "
        "{ a = LayerNormalization(x, w_gain, w_shift) b = MatMul(a, w) y = Add(x, b) }",
        "LayerNormalization subtracts the mean",
    ),
    "inside": (
        in_parts(
            inside="z = Concat<axis = 0>(x, x1, x2)", outputs="float[n, 40] y, float[m, 32] z"
        ),
        "3 values would have to be turned at run time: ",
    ),
    "one for all": (
        in_parts(inside="odd = Add(x2, w_eps)", outputs="float[n, 40] y, float[n, 32] odd"),
        "adds a constant that is none for each channel",
    ),
    "width": (
        "g (float[n, 22] x, float[22, 22] w_in, float[22] w_gain, float[22, 8] w_out) => (float y)"
        "{ h = MatMul(x, w_in) a = RMSNormalization(h, w_gain) y = MatMul(a, w_out) }",
        "no Hadamard matrix of its 22 channels",
    ),
}


@pytest.mark.parametrize(("graph", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_turned_is_told(graph, reason):
    model = made(graph) if "axes" in graph else with_weights(graph, 23)
    nodes = [(node.name, node.op_type, *node.inputs) for node in model.graph]
    left, _ = rotate(model, planned(model, "gptq"), {})
    assert left.rotation.startswith("not rotated: ")
    assert reason in left.rotation
    with pytest.raises(ModelError, match="cannot be rotated") as failure:
        rotate(model, planned(model, rotate=True), {})
    assert reason in failure.value.what
    assert [(node.name, node.op_type, *node.inputs) for node in model.graph] == nodes


def test_it_is_done_where_it_pays():
    feeds = [{"ids": np.random.default_rng(i).integers(0, 100, 24)} for i in range(6)]
    kept = {"exclude": ["narrow"], "target": "ort-cpu", "preset": "int4"}
    rotations = [
        onnxq.quantize(made(in_parts()), **kept, **given).report.rotation
        for given in (
            {"calibration": feeds},
            {"calibration": feeds, "rotate": False},
            {"calibration": feeds, "recipe": {"weights": {"algorithm": "awq"}}},
            {},
            {"rotate": True},
            {"calibration": feeds, "bits_per_weight": 6},
            {"calibration": feeds, "bits_per_weight": 6, "rotate": True},
            {
                "calibration": feeds,
                "recipe": {"rules": [{"match": "up", "weights": {"algorithm": "rtn"}}]},
            },
        )
    ]
    assert [bool(each) for each in rotations] == [True, False, False, False, *[True] * 4]
    assert rotations[0].startswith("rotated: 32 channels of the residual stream")
    assert rotations[5].startswith("not rotated: with bits chosen for a budget")
    assert rotations[6].startswith("rotated: ")
    assert rotations[7].startswith("not rotated: not all of the weights")


def test_outputs_are_nearer_to_float_with_gptq():
    feeds = [{"ids": np.random.default_rng(i).integers(0, 100, 64)} for i in range(8)]
    (expected,) = compute(made(in_parts()), **FEED)
    noises = []
    for rotated in (False, True):
        result = onnxq.quantize(
            made(in_parts()),
            preset="int4",
            target="ort-cpu",
            calibration=feeds,
            rotate=rotated,
            exclude=["head"],
            recipe={"weights": {"symmetric": True}},
        )
        noises.append(float(np.square(compute(result.model, **FEED)[0] - expected).mean()))
    assert noises[1] < noises[0]
