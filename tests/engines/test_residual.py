"""A residual sum reads codes in the engine, and writes nothing in float: proven by the builder."""

import data
import models
import pytest
from graphs import random_feed, with_weights

import onnxq
from onnxq.engines import builder

BLOCK = (
    "g (float[1, 64, 16, 16] x, float[64, 64, 3, 3] w1, float[64, 64, 3, 3] w2, "
    "float[64, 64, 3, 3] w3, float[64, 64, 3, 3] w4) => (float[1, 64, 16, 16] y) { "
    "[stem] a = Conv <pads = [1, 1, 1, 1]> (x, w1) r = Relu(a) "
    "[one] b0 = Conv <pads = [1, 1, 1, 1]> (r, w2) b = Relu(b0) "
    "[two] c = Conv <pads = [1, 1, 1, 1]> (b, w3) [add] s0 = Add(c, r) s = Relu(s0) "
    "[last] y = Conv <pads = [1, 1, 1, 1]> (s, w4) }"
)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build an engine: its attestation, and what the layer of a node reads and writes."""
    read = builder.read_layers

    def built(model, **options):
        logs, layers = [], []

        def spy(log):
            logs.extend(line for line in log.read_text().splitlines() if line[:6] == "Name: ")
            layers.extend(read(log))
            return layers

        monkeypatch.setattr(builder, "read_layers", spy)
        result = onnxq.build(model, tmp_path / "engine", target="rtx-sm89", **options)

        def operands(node):
            (layer,) = (each for each in layers if node in each.nodes and each.type == "kgen")
            (line,) = (each for each in logs if each.startswith(f"Name: {layer.name},"))
            outputs = line.split("Outputs: ")[1].split("TacticName")[0]
            return sorted(layer.inputs), outputs.count("Int8"), outputs.count("Float")

        return result.attestation, operands

    return built


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [((), (["Float", "Int8"], 1, 0)), (("add",), (["Float", "Float"], 1, 0))],
)
def test_the_kernel_of_the_sum(build, exclude, expected):
    model = with_weights(BLOCK)
    feeds = [random_feed(model, seed) for seed in range(2)]
    result = onnxq.quantize(
        model, preset="int8", target="rtx-sm89", calibration=feeds, exclude=exclude
    )
    attestation, operands = build(result.model)
    assert attestation.summary()["proven"] == (4 if exclude else 5)
    assert not attestation.failed
    assert operands("add") == expected
    # The block's input is written in float only if the sum reads it so.
    (relu,) = (node.name for node in result.model.graph if node.outputs[0].name == "r")
    assert operands(relu) == (["Float"], 1, 1 if exclude else 0)


def test_the_sums_of_a_real_model(build):
    result = onnxq.quantize(
        models.path("ppocr-cls"),
        preset="int8",
        target="rtx-sm89",
        calibration=list(data.angle())[:32],
    )
    sums = [d.node for d in result.report.decisions if d.op_type == "Add" and d.action == "int8"]
    assert len(sums) == 2
    attestation, operands = build(result.model, shapes={"x": "1x3x48x192"})
    proven = {op.node for op in attestation.ops if op.verdict == "proven"}
    assert proven == {d.node for d in result.report.decisions if d.action == "int8"}
    assert [operands(node) for node in sums] == [(["Float", "Int8"], 1, 0)] * 2
