"""MatMuls by a stack of matrices as a product for each of them."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq import io, targets
from onnxq.passes.plan import make_plan
from onnxq.passes.prepare import prepare
from onnxq.passes.prepare.split_experts import SplitExperts
from onnxq.recipe import resolve

ACTIVATIONS = {
    "one each": "float[4, 7, 64] x",
    "the same": "float[1, 7, 64] x",
    "a matrix": "float[7, 64] x",
    "a batch": "float[2, 4, 7, 64] x",
    "a batch of the same": "float[2, 1, 7, 64] x",
}
SHAPE = {"one each": "4, 7, 96", "the same": "4, 7, 96", "a matrix": "4, 7, 96"}


def graph(activation, nodes="[bmm] y = MatMul(x, w)", dtype="float"):
    shape = SHAPE.get(activation, "2, 4, 7, 96")
    text = f"g ({ACTIVATIONS[activation]}, float[4, 64, 96] w) => (float[{shape}] y) {{ {nodes} }}"
    return text.replace("float", dtype)


def split(model, **recipe):
    return SplitExperts(resolve("int4", recipe), targets.get("ort-cpu").weight_only())(model)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_the_numbers_stay(activation, dtype):
    model = with_weights(graph(activation, dtype=dtype))
    feed = random_feed(model)
    (before,) = compute(model, **feed)
    assert split(model).modified
    assert not split(model).modified
    (after,) = compute(model, **feed)
    tolerance = 1e-5 if dtype == "float" else 1e-2
    np.testing.assert_allclose(after, before, rtol=tolerance, atol=tolerance)
    products = [node.name for node in model.graph if node.op_type == "MatMul"]
    assert products == [f"bmm_expert_{index}" for index in range(4)]
    assert "w" not in model.graph.initializers


def test_what_is_repeated_for_all_experts_is_not():
    model = with_weights(
        "g (float[1, 7, 64] x, float[4, 64, 96] w, int64[3] ws) => (float[4, 7, 96] y) "
        "{ e = Expand(x, ws) y = MatMul(e, w) }",
        ws=np.array([4, 7, 64]),
    )
    model.graph[0].outputs[0].shape = ir.Shape([4, 7, 64])
    split(model)
    assert {node.op_type for node in model.graph} == {"MatMul", "Concat"}
    assert all(n.inputs[0].name == "x" for n in model.graph if n.op_type == "MatMul")


TRANSPOSED = (
    "g (float[4, 7, 256] x, float[4, 384, 256] w) => (float[4, 7, 384] y) "
    "{ t = Transpose <perm = [0, 2, 1]> (w) [bmm] y = MatMul(x, t) }"
)


def test_a_stack_of_transposed_matrices():
    model = with_weights(TRANSPOSED)
    feed = random_feed(model)
    (before,) = compute(model, **feed)
    assert split(model).modified
    np.testing.assert_allclose(compute(model, **feed)[0], before, rtol=1e-5, atol=1e-5)
    assert "w" not in model.graph.initializers


def test_transposed_matrices_stay_in_their_file(tmp_path):
    io.save(with_weights(TRANSPOSED, 21), tmp_path / "m.onnx", external_data=True)
    model = io.load(tmp_path / "m.onnx")
    prepare(model)
    assert isinstance(model.graph.initializers["w"].const_value, ir.ExternalTensor)


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
@pytest.mark.parametrize("data", [False, True])
def test_transposed_matrices_in_codes(tmp_path, target, data):
    model = with_weights(TRANSPOSED, 21)
    feeds = [random_feed(model, seed) for seed in range(4)]
    given = {"calibration": feeds} if data else {}
    result = onnxq.quantize(model, target=target, preset="int4", **given)
    assert onnxq.compare(model, result.model, feeds).min_sqnr_db > 18
    types = [node.op_type for node in result.model.graph]
    assert types.count("MatMulNBits") == (4 if target == "ort-cpu" else 0)
    if target == "rtx-sm89":
        assert types == ["DequantizeLinear", "Transpose", "MatMul"]
        engine = onnxq.build(result.model, tmp_path / "engine", target=target)
        assert engine.attestation.summary()["proven"] == 1


UNKNOWN = "[n] r = Relu(x) [bmm] y = MatMul(r, w)"


def test_what_stays_whole_says_why():
    model = with_weights(graph("one each", UNKNOWN))
    (kept,) = (k for k in make_plan(model, resolve("int4"), targets.get("ort-cpu")).kept[1:])
    assert "how many its activation has is not known" in kept.reason
    assert not split(model).modified
    assert not split(with_weights(graph("one each")), exclude=["bmm"]).modified
    excluded = resolve("int4", {"exclude": ["bmm"]})
    plan = make_plan(with_weights(graph("one each")), excluded, targets.get("ort-cpu"))
    assert plan.kept[0].reason == "excluded by 'bmm'"


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
@pytest.mark.parametrize("external_data", [True, False])
@pytest.mark.parametrize("options", [{}, {"bits_per_weight": 5}])
def test_weights_stay_in_their_file_until_they_are_written(
    tmp_path, target, external_data, options
):
    io.save(with_weights(graph("one each")), tmp_path / "m.onnx", external_data=external_data)
    result = onnxq.quantize(tmp_path / "m.onnx", target=target, preset="int4", **options)
    large = [v.const_value for v in result.model.graph.initializers.values()]
    assert all(isinstance(each, ir.LazyTensor) for each in large if each.nbytes > 1024)
    result.save(tmp_path / "q.onnx")
    found = onnxq.compare(tmp_path / "m.onnx", tmp_path / "q.onnx", "random:2")
    assert found.min_sqnr_db > 18
    assert result.report.weight_bytes["after"] < 0.18 * result.report.weight_bytes["before"]


@pytest.mark.parametrize("algorithm", ["gptq", "awq", "scale-estimation"])
@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_with_data(target, algorithm):
    """Inputs are few dimensions in truth, which algorithms without data do not know."""
    model = with_weights(graph("one each").replace("4, 7,", "4, 64,"))
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(16, 64))
    feeds = [{"x": (generator.normal(size=(4, 64, 16)) @ mix).astype(np.float32)} for _ in "abcd"]

    def quantized(**options):
        return onnxq.quantize(model, target=target, preset="int4", **options)

    without = onnxq.compare(model, quantized().model, feeds).min_sqnr_db
    recipe = {"weights": {"algorithm": algorithm}}
    result = quantized(calibration=feeds, recipe=recipe)
    found = onnxq.compare(model, result.model, feeds).min_sqnr_db
    assert found > without + (0 if algorithm == "awq" else 1)
    expected = [
        d.numbers["expected_sqnr_db"] for d in result.report.decisions if d.action == "int4"
    ]
    assert min(expected) > without - 1


def test_scales_of_awq_go_into_a_stack():
    model = with_weights(
        "g (float[4, 64, 64] x, float[64] wn, float[64] wz, float[4, 64, 96] w) => "
        "(float[4, 64, 96] y) { n = LayerNormalization(x, wn, wz) y = MatMul(n, w) }",
        wn=np.tile([8.0, 0.05], 32),
    )
    feeds = [random_feed(model, seed) for seed in range(4)]
    recipe = {"weights": {"algorithm": "awq"}}
    result = onnxq.quantize(
        model, target="rtx-sm89", preset="int4", calibration=feeds, recipe=recipe
    )
    plain = onnxq.quantize(model, target="rtx-sm89", preset="int4")
    found, before = (onnxq.compare(model, each.model, feeds) for each in (result, plain))
    assert found.min_sqnr_db > before.min_sqnr_db
    norm = next(n for n in result.model.graph if n.op_type == "LayerNormalization")
    assert not np.allclose(norm.inputs[1].const_value.numpy(), np.tile([8.0, 0.05], 32))


@pytest.mark.parametrize("tokens", [1, 7])
def test_engines_read_the_codes_of_a_stack(tmp_path, tokens):
    text = graph("one each").replace("4, 7,", f"4, {tokens},")
    model = with_weights(text, 21)
    result = onnxq.quantize(model, target="rtx-sm89", preset="int4")
    assert [node.op_type for node in result.model.graph] == ["DequantizeLinear", "MatMul"]
    engine = onnxq.build(result.model, tmp_path / "engine", target="rtx-sm89")
    assert engine.attestation.summary() == {
        "planned": 1, "proven": 1, "float": 0, "unproven": 0,
    }  # fmt: skip
