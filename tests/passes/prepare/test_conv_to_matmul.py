"""Convs with a kernel of size 1 as products of matrices."""

import re

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq import io, targets
from onnxq.errors import RecipeError, TargetError
from onnxq.passes.prepare.conv_to_matmul import ConvToMatMul
from onnxq.passes.remove_unused import RemoveUnused
from onnxq.recipe import resolve
from onnxq.report import Decision


def graph(image, nodes, dtype="float"):
    """A graph on an image; w is [96, 64], v [64, 96], each with a kernel of size 1."""
    ones = ", 1" * len(image)
    sizes = ", ".join(map(str, image))
    text = (
        f"g (float[2, 64, {sizes}] x, float[96, 64{ones}] w, float[96] wb, "
        f"float[64, 96{ones}] wv, float[64, 1{ones}] wd, float[64, 64{', 3' * len(image)}] wk) "
        f"=> (float[n] y) {{ {nodes} }}"
    )
    return text.replace("float", dtype)


def converted(model, target="ort-cpu", **recipe):
    asked = resolve("int4", recipe, conv_as_matmul=True)
    return ConvToMatMul(asked, targets.get(target).weight_only())(model).modified


CHAIN = "[a] h = Conv(x, w, wb) [b] y = Conv <auto_pad = 'SAME_UPPER'> (h, wv)".replace("'", '"')
APART = "[a] h = Conv(x, w, wb) r = Relu(h) [b] y = Conv(r, wv)"


@pytest.mark.parametrize("image", [(9,), (5, 7), (3, 4, 5)])
@pytest.mark.parametrize("nodes", [CHAIN, APART])
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_the_numbers_stay(image, nodes, dtype):
    model = with_weights(graph(image, nodes, dtype))
    feed = random_feed(model)
    (before,) = compute(model, **feed)
    assert converted(model)
    assert not converted(model)
    (after,) = compute(model, **feed)
    tolerance = 1e-5 if dtype == "float" else 1e-2
    np.testing.assert_allclose(after, before, rtol=tolerance, atol=tolerance)
    assert [n.name for n in model.graph if n.op_type == "MatMul"] == ["a", "b"]
    assert not {"w", "wv"} & {*model.graph.initializers}
    assert model.graph.outputs[0].name == "y"


def test_channels_are_not_moved_back_and_forth_between_two():
    model = with_weights(graph((5, 7), CHAIN))
    converted(model)
    RemoveUnused()(model)
    moves = [n for n in model.graph if n.op_type == "Transpose" and n.inputs[0].shape is None]
    first, *_, last = model.graph
    assert first.op_type == last.op_type == "Transpose"
    assert moves == [last]


def test_a_conv_in_a_branch():
    model = with_weights(
        "g (bool c, float[1, 64, 2, 2] x, float[64, 64, 1, 1] w) => (float[1, 64, 2, 2] y) { "
        "y = If (c) < then_branch = t () => (float[1, 64, 2, 2] a) { a = Conv(x, w) }, "
        "else_branch = e () => (float[1, 64, 2, 2] b) { b = Relu(x) } > }"
    )
    feed = random_feed(model) | {"c": np.array(True)}
    (before,) = compute(model, **feed)
    assert converted(model)
    np.testing.assert_allclose(compute(model, **feed)[0], before, rtol=1e-5, atol=1e-5)


def test_two_convs_share_their_matrix():
    nodes = "[a] h = Conv(x, w) [b] i = Conv(x, w) y = Add(h, i)"
    model = with_weights(graph((5, 7), nodes))
    converted(model)
    assert [name for name in model.graph.initializers if name.endswith("matrix")] == ["w_matrix"]
    assert not converted(with_weights(graph((5, 7), nodes)), "rtx-sm89")


KEPT = [
    ("[op] y = Conv(x, wk)", "a kernel of 3x3"),
    ("[op] y = Conv <group = 64> (x, wd)", "a grouped Conv"),
    ("[op] y = Conv <strides = [2, 1]> (x, w)", r"skips pixels \(strides\)"),
    ("[op] y = Conv <pads = [0, 0, 1, 0]> (x, w)", r"adds pixels \(pads\)"),
    ("[op] y = Conv(x, w)", "which a Conv with a kernel of size 1 becomes with --conv-as-matmul"),
]


def why(model, node="op", target="ort-cpu", **options) -> Decision:
    """What becomes of a Conv in a model with something else to quantize."""
    report = onnxq.quantize(model, target=target, preset="int4", **options).report
    return next(d for d in report.decisions if d.node == node)


def with_product(nodes):
    graph_ = graph((5, 7), nodes + " [m] z = MatMul(q, wm)")
    return with_weights(
        graph_.replace("g (", "g (float[2, 64] q, float[64, 64] wm, ", 1).replace(
            "(float[n] y)", "(float[n] y, float[2, 64] z)"
        )
    )


@pytest.mark.parametrize(("nodes", "reason"), KEPT)
def test_what_stays_a_conv_says_why(nodes, reason):
    asked = "--conv-as-matmul" not in reason
    decision = why(with_product(nodes), conv_as_matmul=asked)
    assert decision.action == "float"
    assert re.search(reason, decision.reason)


def test_what_could_have_no_codes_stays_a_conv():
    model = with_product("[op] y = Conv(x, w)")
    excluded = why(model, conv_as_matmul=True, exclude=("op",))
    assert excluded.reason == "excluded by 'op'"
    rules = [{"match": "m", "weights": {"block_size": 32}}]
    recipe = {"weights": {"block_size": 128}, "rules": rules}
    large = why(model, target="rtx-sm89", recipe=recipe, conv_as_matmul=True)
    assert "no multiple of the block size 128" in large.reason
    assert large.op_type == "Conv"


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
@pytest.mark.parametrize("external_data", [True, False])
def test_weights_stay_in_their_file_until_they_are_written(tmp_path, target, external_data):
    model = with_weights(graph((5, 7), APART))
    io.save(model, tmp_path / "m.onnx", external_data=external_data)
    result = onnxq.quantize(tmp_path / "m.onnx", target=target, preset="int4", conv_as_matmul=True)
    assert result.report.counts()["int4"] == 2
    large = [v.const_value for v in result.model.graph.initializers.values()]
    assert all(isinstance(each, ir.LazyTensor) for each in large if each.nbytes > 1024)
    result.save(tmp_path / "q.onnx")
    found = onnxq.compare(tmp_path / "m.onnx", tmp_path / "q.onnx", "random:2")
    assert found.min_sqnr_db > 13  # 4 bits of a normally distributed weight, twice
    assert result.report.weight_bytes["after"] < 0.2 * result.report.weight_bytes["before"]


def test_with_data():
    model = with_weights(graph((5, 7), APART))
    feeds = [random_feed(model, seed) for seed in range(4)]
    result = onnxq.quantize(
        model, target="ort-cpu", preset="int4", conv_as_matmul=True, calibration=feeds
    )
    (a, b) = (d for d in result.report.decisions if d.action == "int4")
    assert (a.node, b.node) == ("a", "b")
    assert a.numbers["expected_sqnr_db"] > 15
    assert onnxq.compare(model, result.model, feeds).min_sqnr_db > 15


@pytest.mark.parametrize("image", [(9,), (5, 7)])
def test_engines_read_the_codes(tmp_path, image):
    model = with_weights(graph(image, APART), 21)
    result = onnxq.quantize(model, target="rtx-sm89", preset="int4", conv_as_matmul=True)
    engine = onnxq.build(result.model, tmp_path / "engine", target="rtx-sm89")
    assert engine.attestation.summary() == {
        "planned": 2, "proven": 2, "float": 0, "unproven": 0,
    }  # fmt: skip


def test_engines_read_the_codes_of_one_pixel(tmp_path):
    """Squeeze and excitation: TensorRT generates a kernel without matrices."""
    model = with_weights(
        "g (float[1, 64, 12, 12] x, float[48, 64, 1, 1] w, float[48] wb) => (float[1, 48, 1, 1] y) "
        "{ p = GlobalAveragePool(x) [a] h = Conv(p, w, wb) y = Relu(h) }",
        21,
    )
    result = onnxq.quantize(model, target="rtx-sm89", preset="int4", conv_as_matmul=True)
    (op,) = onnxq.build(result.model, tmp_path / "engine", target="rtx-sm89").attestation.ops
    assert (op.node, op.verdict) == ("a", "proven")
    assert "MulSum" in op.evidence
    assert "constants Int4" in op.evidence


def test_only_int4_has_it():
    with pytest.raises(RecipeError, match="preset int8 has no blocks of weights"):
        resolve("int8", conv_as_matmul=True)
    assert resolve("int4", {"conv_as_matmul": True}).conv_as_matmul
    assert not resolve("int4").conv_as_matmul
    with pytest.raises(TargetError, match="rtx-sm75"):
        onnxq.quantize(
            with_weights(graph((5, 7), APART)),
            target="rtx-sm75", preset="int4", conv_as_matmul=True,
        )  # fmt: skip
