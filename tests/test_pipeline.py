"""The straight line: every real model for both kinds of targets, and what the report says of it."""

import itertools
import re

import data
import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq import preparation
from onnxq.errors import DataError, RecipeError, TargetError
from onnxq.passes.plan import CANDIDATES

GRAPH = """
g (float[2, 32, 8, 8] x, float[32, 32, 3, 3] w1, float[32] wb, float[32, 64] w2)
=> (float[2, 64] y) {
    [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w1, wb)
    r = Relu(c)
    p = GlobalAveragePool(r)
    f = Flatten(p)
    [head] y = MatMul(f, w2)
}
"""
FEEDS = {
    "ppocr-rec": data.recognition,
    "ppocr-det": data.detection,
    "orientation": data.orientation,
    "yolov8n": data.yolo,
    "minilm": data.minilm,
    "ppocr-cls": data.angle,
    "magika": data.magika,
    "silero-vad": data.silero,
}
# Models that a preset can do nothing for, and what the error says of them first.
NO_BLOCKS = "blocks of weights are for MatMul"
WHY_NOT = {(name, "int4"): NO_BLOCKS for name in ("ppocr-rec", "ppocr-cls", "ppocr-det", "yolov8n")}


def feeds(model, count=4):
    return [random_feed(model, seed) for seed in range(count)]


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
@pytest.mark.parametrize("preset", ["int8", "int4"])
@pytest.mark.parametrize("name", [n for n in models.names() if not n.startswith("smollm2")])
def test_every_model_goes_through(name, preset, target, tmp_path):
    two = {"calibration": list(itertools.islice(FEEDS[name](), 2))}
    given = two if preset == "int8" else {}
    # Two samples are no data to judge ops by.
    every_op = {"activations": {"min_op_sqnr": None}, "recovery": None}
    recipe = every_op if preset == "int8" else None
    try:
        result = onnxq.quantize(
            models.path(name), preset=preset, target=target, recipe=recipe, **given
        )
    except RecipeError as nothing:
        assert str(nothing).startswith(
            f"Nothing in the model can be quantized: {WHY_NOT[name, preset]}"
        )
        return
    result.save(tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"))
    assert result.report.counts()[preset] >= 1
    left = [d for d in result.report.decisions if d.action == "float"]
    assert all(decision.reason for decision in left)
    nodes = [decision.node for decision in result.report.decisions]
    assert len(set(nodes)) == len(nodes)
    candidates = [d for d in result.report.decisions if d.op_type in (*CANDIDATES, "Add")]
    assert sum(d.action == preset for d in candidates) == result.report.counts()[preset]


def test_every_form_of_model_gives_the_same_file(tmp_path):
    model = with_weights(GRAPH)
    onnxq.save(model, tmp_path / "m.onnx")
    written = []
    for form in (model, tmp_path / "m.onnx", str(tmp_path / "m.onnx"), ir.to_proto(model)):
        result = onnxq.quantize(form, preset="int8", target="ort-cpu", calibration=feeds(model))
        result.save(tmp_path / "out.onnx")
        written.append((tmp_path / "out.onnx").read_bytes())
    assert len(set(written)) == 1


def test_the_input_is_not_modified():
    model = with_weights(GRAPH)
    before = ir.to_proto(model).SerializeToString()
    onnxq.quantize(model, preset="int8", target="ort-cpu", calibration=feeds(model))
    onnxq.quantize(model, preset="int4", target="ort-cpu")
    onnxq.calibrate(model, feeds(model))
    assert ir.to_proto(model).SerializeToString() == before


def test_the_report_tells_scales_data_and_fidelity():
    model = with_weights(GRAPH)
    given = {"preset": "int8", "target": "ort-cpu", "calibration": feeds(model)}
    report = onnxq.quantize(model, cpu_has_vnni=True, **given).report
    decisions = {decision.node: decision for decision in report.decisions}
    assert decisions["conv"].numbers["weight"] == "int8 symmetric per-channel(axis 0)"
    assert decisions["conv"].numbers["input"] == "uint8 asymmetric per-tensor"
    assert 0 < decisions["conv"].numbers["input_scale"] < 1
    assert 20 < decisions["conv"].numbers["sqnr_db"] < 60
    assert report.calibration["samples"] == 4
    assert report.weight_bytes["after"] < 0.3 * report.weight_bytes["before"]
    assert report.warnings == []


@pytest.mark.parametrize("machine_has_it", [True, False])
@pytest.mark.parametrize("given", [None, True, False])
def test_weights_have_7_bits_for_cpus_without_vnni(monkeypatch, tmp_path, given, machine_has_it):
    monkeypatch.setattr(preparation, "has_vnni", lambda: machine_has_it)
    expected = machine_has_it if given is None else given
    model = with_weights(GRAPH)
    int8 = {"preset": "int8", "target": "ort-cpu", "cpu_has_vnni": given}
    result = onnxq.quantize(model, calibration=feeds(model), **int8)
    result.save(tmp_path / "m.onnx")
    weights = [
        value.const_value.numpy()
        for value in ir.load(tmp_path / "m.onnx").graph.initializers.values()
        if value.const_value.dtype == ir.DataType.INT8
    ]
    assert len(weights) == 2
    assert {int(np.abs(each.astype(int)).max()) for each in weights} == {127 if expected else 63}
    assert result.report.counts()["int8"] == 2
    (conv,) = [d for d in result.report.decisions if d.node == "conv"]
    assert conv.numbers["weight"].startswith("int8 " if expected else "int7 ")
    assert ("--no-cpu-has-vnni" in result.report.runs_on) == expected
    planned = onnxq.plan(model, **int8)
    assert planned.target.runs_on == result.report.runs_on != ""
    assert planned.ops[0].weight.format == ("int8" if expected else "int7")


@pytest.mark.parametrize(("preset", "target"), [("int8", "rtx-sm89"), ("int4", "ort-cpu")])
def test_what_does_not_depend_on_vnni_refuses_to_be_told(preset, target):
    model = with_weights(GRAPH)
    for has_it in (True, False):
        with pytest.raises(
            TargetError, match=f"Preset {preset} for '{target}' is the same for CPUs with VNNI"
        ):
            onnxq.quantize(model, preset=preset, target=target, cpu_has_vnni=has_it)
    assert onnxq.plan(model, preset=preset, target=target).target.runs_on == ""


def harmed():
    """A model and data: values that the conv never reads take most codes, in every channel."""
    centre = np.zeros((32, 32, 3, 3))
    centre[:, :, 1, 1] = np.random.default_rng(0).normal(size=(32, 32))
    model = with_weights(GRAPH.replace("<pads", "<strides = [2, 2], pads"), w1=centre)
    samples = feeds(model)
    for sample in samples:
        sample["x"][:, :, 1, 1] = 500
    return model, samples


def test_an_op_that_int8_would_harm_stays_in_float():
    model, samples = harmed()
    given = {"preset": "int8", "target": "ort-cpu", "calibration": samples}
    report = onnxq.quantize(model, **given).report
    (conv,) = [decision for decision in report.decisions if decision.node == "conv"]
    assert conv.action == "float"
    assert "dB of its output's signal above the noise; 20.0 dB are asked for" in conv.reason
    assert conv.numbers["sqnr_db"] < 20
    anyway = {"activations": {"min_op_sqnr": None}, "recovery": None}
    assert onnxq.quantize(model, recipe=anyway, **given).report.counts()["int8"] == 2


def test_an_op_that_costs_the_outputs_too_much_stays_in_float():
    model, samples = harmed()
    recipe = {
        "activations": {"min_op_sqnr": None},
        "recovery": {"max_float_ops": 0.5, "max_float_weights": 1},
    }
    report = onnxq.quantize(
        model, preset="int8", target="ort-cpu", calibration=samples, recipe=recipe
    ).report
    (conv,) = [decision for decision in report.decisions if decision.node == "conv"]
    assert conv.action == "float"
    assert re.search(
        r"makes 100% of the noise of output .*: [-\d.]+ dB with, [\d.]+ dB without it", conv.reason
    )
    assert report.output_sqnr_db > 20


def test_nothing_left_to_quantize():
    model = with_weights(GRAPH)
    with pytest.raises(RecipeError, match=r"Nothing in the model can be quantized: .*dB"):
        onnxq.quantize(
            model,
            preset="int8",
            target="ort-cpu",
            calibration=feeds(model),
            recipe={"activations": {"min_op_sqnr": 200}},
        )


def test_a_generator_is_read_once():
    model = with_weights(GRAPH)
    given = {"preset": "int8", "target": "ort-cpu"}
    once = onnxq.quantize(model, calibration=iter(feeds(model)), **given)
    often = onnxq.quantize(model, calibration=feeds(model), **given)
    assert once.report.decisions == often.report.decisions


def test_statistics_with_and_without_data():
    model = with_weights(GRAPH)
    given = {"preset": "int8", "target": "ort-cpu"}
    stats = onnxq.calibrate(model, feeds(model))
    both = onnxq.quantize(model, stats=stats, calibration=iter(feeds(model)), **given).report
    assert (
        both.decisions == onnxq.quantize(model, calibration=feeds(model), **given).report.decisions
    )
    (warning,) = onnxq.quantize(model, stats=stats, **given).report.warnings
    assert "The ops were not measured" in warning


def test_data_for_a_preset_that_takes_none():
    model = with_weights(GRAPH)
    auto = {"preset": "int4", "recipe": {"weights": {"algorithm": "auto"}}}
    for preset in (auto, {"preset": "int8-dynamic"}):
        for given in ({"calibration": feeds(model)}, {"stats": "file"}):
            with pytest.raises(
                DataError, match=f"Preset {preset['preset']}.* needs no calibration"
            ):
                onnxq.quantize(model, target="ort-cpu", **preset, **given)


def test_a_weight_algorithm_that_needs_data_says_so():
    model = with_weights(GRAPH)
    gptq = {"target": "ort-cpu", "recipe": {"weights": {"algorithm": "gptq"}}}
    with pytest.raises(DataError, match="The weight algorithm gptq needs calibration data"):
        onnxq.quantize(model, preset="int4", **gptq)
    with pytest.raises(DataError, match="not by statistics"):
        onnxq.quantize(model, preset="int4", calibration=feeds(model), stats="file", **gptq)
    with pytest.raises(RecipeError, match="second moments of activations, which preset int4 alone"):
        onnxq.quantize(model, preset="int8", calibration=feeds(model), **gptq)


def test_names_are_checked_before_any_data_is_read():
    def never():
        raise AssertionError

    model = with_weights(GRAPH)
    for recipe in (
        {"weights": {"algorithm": "rtm"}},
        {"rules": [{"match": "*", "weights": {"algorithm": "rtm"}}]},
        {"activations": {"observer": "maxmin"}},
    ):
        with pytest.raises(RecipeError, match=r"Did you mean 'rtn'|observer 'maxmin'"):
            onnxq.quantize(model, preset="int8", target="ort-cpu", calibration=never, recipe=recipe)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_half_precision_models_in_4_bits(dtype, target):
    model = with_weights(
        f"g ({dtype}[4, 64] x, {dtype}[64, 64] w) => ({dtype}[4, 64] y) {{ y = MatMul(x, w) }}"
    )
    result = onnxq.quantize(model, preset="int4", target=target)
    assert result.model.graph.outputs[0].dtype.name.lower() == dtype
    scales = [v for n, v in result.model.graph.initializers.items() if "scale" in n]
    assert [scale.dtype.name.lower() for scale in scales] == [dtype]


def test_half_precision_int8_computes():
    model = with_weights(GRAPH.replace("float", "float16"))
    samples = feeds(model)
    result = onnxq.quantize(model, preset="int8", target="rtx-sm89", calibration=samples)
    (expected,), (found,) = (compute(each, **samples[0]) for each in (model, result.model))
    assert found.dtype == np.float16
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_straight_from_torch():
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    x = torch.randn(4, 64)
    program = torch.onnx.export(net.eval(), (x,), dynamo=True, verbose=False)
    (name,) = [value.name for value in program.model.graph.inputs]
    result = onnxq.quantize(
        program, preset="int8", target="ort-cpu", calibration=[{name: x.numpy()}]
    )
    assert result.report.counts()["int8"] == 2
    (found,) = compute(result.model, **{name: x.numpy()})
    np.testing.assert_allclose(found, net(x).detach().numpy(), atol=0.05)
