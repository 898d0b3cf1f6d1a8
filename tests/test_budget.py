"""Bits for a budget: what the file takes, and where the bits go."""

import numpy as np
import pytest
from graphs import compute, with_weights

import onnxq
from onnxq import io, pipeline
from onnxq.bytesize import in_bytes
from onnxq.errors import ModelError, RecipeError

GRAPH = """
    g (float[n, 128] x, float[128, 256] w1, float[256, 96] w2, float[40, 256] w3)
        => (float[n, 96] y, float[n, 40] z)
    {
        [first] hidden = MatMul(x, w1)
        positive = Relu(hidden)
        [second] y = MatMul(positive, w2)
        [third] z = Gemm<transB = 1>(positive, w3)
    }
"""
GIVEN = {"target": "ort-cpu", "preset": "int4"}


def data(count=4):
    rng = np.random.default_rng(0)
    scales = np.repeat([10, 0.1], 64).astype(np.float32)
    return [{"x": rng.normal(size=(64, 128)).astype(np.float32) * scales} for _ in range(count)]


def bits(result):
    return {d.node: int(d.action[3:]) for d in result.report.decisions if d.action != "float"}


@pytest.mark.parametrize("options", [{"bits_per_weight": 5}, {"size_budget": 50_000}])
def test_weights_in_a_data_file(tmp_path, options):
    path = tmp_path / "m.onnx"
    io.save(with_weights(GRAPH, 21), path, external_data=True)
    beside = onnxq.quantize(path, **options, **GIVEN)
    assert bits(beside) == bits(onnxq.quantize(with_weights(GRAPH, 21), **options, **GIVEN))


@pytest.mark.parametrize("calibration", [None, data()], ids=["no data", "data"])
@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
def test_the_file_meets_the_budget_and_uses_it(tmp_path, calibration, external):
    model, path = with_weights(GRAPH, 21), tmp_path / "m.onnx"
    noises = []
    for size in (40_000, 50_000, 70_000):
        result = onnxq.quantize(model, calibration=calibration, size_budget=size, **GIVEN)
        result.save(path, external_data=external)
        taken = sum(file.stat().st_size for file in tmp_path.iterdir())
        assert 0.6 * size < taken <= size
        (feed,) = data(1)
        pairs = zip(compute(model, **feed), compute(result.model, **feed), strict=True)
        noises.append(sum(float(np.square(a - b).mean() / np.square(a).mean()) for a, b in pairs))
    assert noises == sorted(noises, reverse=True)
    assert noises[2] < 0.1 * noises[0]


def test_bits_per_weight_count_scales_and_zero_points():
    model = with_weights(GRAPH, 21)
    weights = 128 * 256 + 256 * 96 + 40 * 256
    for mean in (3.0, 4.6, 6.0):
        result = onnxq.quantize(model, bits_per_weight=mean, **GIVEN)
        assert 0.9 * mean < 8 * result.report.weight_bytes["after"] / weights <= mean
    assert set(bits(result).values()) <= {4, 8}


def test_bits_go_where_they_are_needed():
    """The columns of w2 are hard to quantize, those of w3 lie on a grid of 4 bits."""
    rng = np.random.default_rng(0)
    hard = rng.standard_t(2, size=(256, 96)).astype(np.float32)
    easy = rng.integers(-8, 8, size=(40, 256)).astype(np.float32)
    model = with_weights(GRAPH, 21, w2=hard, w3=easy)
    result = onnxq.quantize(model, calibration=data(), bits_per_weight=6.0, **GIVEN)
    assert bits(result)["third"] == 4
    assert bits(result)["second"] == 8
    numbers = {d.node: d.numbers for d in result.report.decisions}
    assert numbers["second"]["expected_sqnr_db"] > 30
    assert numbers["second"]["weight"].startswith("uint8 asymmetric block")


def test_what_a_recipe_fixes_stays_fixed():
    recipe = {
        "preset": "int4",
        "bits_per_weight": 6.3,
        "weights": {"bits": "auto", "block_size": 32, "symmetric": True},
        "rules": [{"match": "first", "weights": {"bits": 8}}],
    }
    result = onnxq.quantize(with_weights(GRAPH, 21), target="ort-cpu", recipe=recipe)
    specs = {d.node: d.numbers["weight"] for d in result.report.decisions if d.action != "float"}
    assert specs["first"] == "int8 symmetric block 32(axis 0)"
    assert all("symmetric block 32" in spec for spec in specs.values())
    assert specs["second"].startswith(("int2", "int4"))


def test_a_budget_that_cannot_be_met_names_the_least():
    model = with_weights(GRAPH, 21)
    with pytest.raises(RecipeError, match=r"takes at least 0\.0\d MB; the budget is 0\.01 MB"):
        onnxq.quantize(model, size_budget="10kB", **GIVEN)
    with pytest.raises(RecipeError, match=r"At least 2\.\d+ bits per weight are needed"):
        onnxq.quantize(model, bits_per_weight=2.0, **GIVEN)
    with pytest.raises(RecipeError, match=r"At least 4\.250 bits per weight"):
        onnxq.quantize(
            model, bits_per_weight=4.0, target="rtx-sm89", preset="int4", exclude=["first"]
        )


def test_the_size_named_as_least_is_met(tmp_path):
    model = with_weights(GRAPH, 21)
    with pytest.raises(RecipeError) as failure:
        onnxq.quantize(model, size_budget=1000, **GIVEN)
    least = failure.value.fix.split(" or more")[0].removeprefix("Raise size_budget to ")
    onnxq.quantize(model, size_budget=least, **GIVEN).save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size <= in_bytes(least)


def test_the_plan_shows_the_bits():
    planned = pipeline.plan(with_weights(GRAPH, 21), bits_per_weight=4.6, **GIVEN)
    sizes = {op.node: str(op.weight) for op in planned.ops}
    assert len({spec for spec in sizes.values()}) > 1
    assert {row["to"] for row in planned.to_rows()[:3]} <= {"int2", "int4", "int8"}


def test_a_weight_that_two_ops_read_is_chosen_and_stored_once():
    model = with_weights(
        """
        g (float[n, 64] x, float[64, 64] w) => (float[n, 64] y) {
            hidden = MatMul(x, w)
            y = MatMul(hidden, w)
        }
        """,
        21,
    )
    result = onnxq.quantize(model, bits_per_weight=5, **GIVEN)
    assert 8 * result.report.weight_bytes["after"] <= 5 * 64 * 64
    assert len(set(bits(result).values())) == 1


def test_nan_is_refused_by_name():
    weight = np.full((256, 96), np.nan, np.float32)
    with pytest.raises(ModelError, match="'w2' holds NaN"):
        onnxq.quantize(with_weights(GRAPH, 21, w2=weight), bits_per_weight=5, **GIVEN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": "auto"}, "needs a budget"),
        ({"size_budget": "1MB", "bits_per_weight": 4}, "two budgets"),
        ({"bits": 4, "size_budget": "1MB"}, "a budget is for weights of bits: auto"),
        ({"bits": 5}, "weights.bits"),
        ({"size_budget": "much"}, "size budget is 'much'"),
        ({"bits_per_weight": -1}, "greater than 0"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(RecipeError, match=message):
        onnxq.quantize(with_weights(GRAPH, 21), **options, **GIVEN)


def test_other_presets_have_no_budget():
    with pytest.raises(RecipeError, match="preset int8 has"):
        pipeline.plan(with_weights(GRAPH, 21), preset="int8", target="ort-cpu", bits_per_weight=4)


def test_the_head_of_many_ops_gets_more_bits():
    """All weights are alike, and so is what they are multiplied by, but one makes the output."""
    weight = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
    nodes = "".join(f"[op{i}] h{i + 1} = MatMul(h{i}, w{i})\n" for i in range(12))
    inputs = "".join(f", float[64, 64] w{i}" for i in range(12))
    graph = f"g (float[n, 64] h0{inputs}) => (float[n, 64] h12) {{ {nodes} }}"
    model = with_weights(graph, 21, **{f"w{i}": weight for i in range(12)})
    found = bits(onnxq.quantize(model, bits_per_weight=5, **GIVEN))
    assert found == {f"op{i}": 4 for i in range(11)} | {"op11": 8}
