"""What TensorRT makes of a Concat between int8 ops, and of branches of unlike ranges."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq.engines import builder
from onnxq.passes.edit import Editor

JOINED = (
    "g (float[1, 64, 16, 16] x, float[64, 64, 3, 3] wa, float[64, 64, 3, 3] wb, "
    "float[64, 128, 3, 3] wc) => (float[1, 64, 12, 12] y) { [a] a0 = Conv(x, wa) a1 = Relu(a0) "
    "[b] b0 = Conv(x, wb) b1 = Relu(b0) [join] j = Concat <axis = 1> (a1, b1) [c] y = Conv(j, wc) }"
)
BOXES_BESIDE_SCORES = (
    "g (float[1, 64, 8, 8] x, float[64, 64, 3, 3] w1, float[64, 64, 3, 3] w2, "
    "float[32, 64, 1, 1] w3, float[32, 64, 1, 1] w4) => (float[1, 64, 6, 6] y) { "
    "[b1] b = Conv(x, w1) [s1] s = Conv(x, w2) [boxes] b2 = Conv(b, w3) [scores] s2 = Conv(s, w4) "
    "s3 = Sigmoid(s2) [join] y = Concat <axis = 1> (b2, s3) }"
)


@pytest.fixture
def layers_of(tmp_path, monkeypatch):
    """What the layers of an engine are, and what they read."""
    read = builder.read_layers

    def layers(model):
        seen = []
        monkeypatch.setattr(builder, "read_layers", lambda log: seen.extend(read(log)) or seen)
        built = onnxq.build(model, tmp_path / "engine", target="rtx-sm89")
        assert built.attestation.summary()["proven"] == 3
        return sorted((layer.type, layer.inputs) for layer in seen)

    return layers


def test_branches_are_joined_in_int8_with_and_without_q_dq_on_them(layers_of):
    model = with_weights(JOINED)
    feeds = [random_feed(model, seed) for seed in range(2)]
    plain = onnxq.quantize(model, preset="int8", target="rtx-sm89", calibration=feeds).model
    join = next(node for node in plain.graph if node.name == "join")
    assert not any(value.producer().op_type == "DequantizeLinear" for value in join.inputs)
    (behind,) = (node for node, _ in join.outputs[0].uses())
    assert behind.op_type == "QuantizeLinear"
    expected = layers_of(plain)

    around = plain.clone()
    join = next(node for node in around.graph if node.name == "join")
    scale, zero = next(iter(join.outputs[0].uses())).node.inputs[1:]
    editor = Editor(around)
    for index, value in enumerate(list(join.inputs)):
        codes = editor.node(
            "QuantizeLinear", [value, scale, zero], name=f"q{index}", before=join,
            dtype=ir.DataType.INT8, shape=value.shape,
        )  # fmt: skip
        again = editor.node(
            "DequantizeLinear", [codes, scale, zero], name=f"dq{index}", before=join,
            dtype=value.dtype, shape=value.shape,
        )  # fmt: skip
        join.replace_input_with(index, again)
    assert layers_of(around) == expected


@pytest.mark.parametrize("target", ["rtx-sm89", "ort-cpu"])
def test_boxes_beside_scores_keep_scales_of_their_own(target):
    model = with_weights(
        BOXES_BESIDE_SCORES, w3=np.random.default_rng(1).normal(0, 100, (32, 64, 1, 1))
    )
    feeds = [random_feed(model, seed) for seed in range(4)]
    result = onnxq.quantize(model, preset="int8", target=target, calibration=feeds, recovery=False)
    (join,) = (d for d in result.report.decisions if d.node == "join")
    assert join.action == "float"
    assert result.report.counts()["int8"] == 4
    (expected,), (found,) = compute(model, **feeds[0]), compute(result.model, **feeds[0])
    peaks = [np.abs(expected[:, part]).max() for part in (slice(32), slice(32, None))]
    assert peaks[0] > 1000 * peaks[1]
    for part in (slice(32), slice(32, None)):
        error, signal = found[:, part] - expected[:, part], expected[:, part]
        assert 10 * np.log10((signal**2).sum() / (error**2).sum()) > 25
