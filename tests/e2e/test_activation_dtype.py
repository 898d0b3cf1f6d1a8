"""4-bit weights with activations in half the bytes: what real models compute stays."""

import data
import models
import numpy as np
import onnx_ir as ir
import pytest
from graphs import with_weights
from language import distances

import onnxq
from onnxq import runtime
from onnxq.errors import ModelError, TargetError

HALF = ir.DataType.FLOAT16

MLP = """
    g (float[n, 64] x, float[64] w_norm, float[64, 128] w_up, float[128, 64] w_down)
        => (float[n, 64] y) {
        [norm] normed = LayerNormalization(x, w_norm)
        [up] wide = MatMul(normed, w_up)
        [gate] gate = Sigmoid(wide)
        [silu] silu = Mul(wide, gate)
        [down] narrow = MatMul(silu, w_down)
        [residual] y = Add(x, narrow)
    }
    """


def quantize(model, target="ort-cpu", dtype="fp16", **given):
    return onnxq.quantize(model, preset="int4", target=target, activation_dtype=dtype, **given)


def test_perplexity_of_a_language_model(tmp_path):
    model = models.path("smollm2")
    for dtype in ("fp32", "fp16"):
        quantize(model, dtype=dtype).save(tmp_path / f"{dtype}.onnx")
    (found,) = distances(
        tmp_path / "fp32.onnx", [tmp_path / "fp16.onnx"], data.token_windows(4, 256)
    )
    print(found)
    assert abs(found.ratio - 1) < 0.005
    assert found.kl < 0.002


def test_sentence_embeddings():
    model = models.path("minilm")
    halves = quantize(model)
    reasons = {d.node: d.reason for d in halves.report.decisions}
    softmax = next(reason for node, reason in reasons.items() if node.startswith("Softmax"))
    assert softmax.endswith(
        "; computed in float32: its sums or powers would lose digits or overflow in float16"
    )
    types = {value.dtype for node in halves.model.graph for value in node.outputs}
    assert HALF in types
    sessions = [runtime.session(m) for m in (quantize(model, dtype="fp32").model, halves.model)]
    for sentence in data.sentences(8, data.EVALUATION):
        a, b = (s.run(None, data.sentence_feed(sentence))[0].ravel() for s in sessions)
        assert b.dtype == np.float32
        assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.9999


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_an_engine_of_halves(tmp_path, dtype):
    quantize(with_weights(MLP, 21), "rtx-sm89", dtype).save(tmp_path / "m.onnx")
    engine = onnxq.build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        target="rtx-sm89",
        shapes={"x": "1x64:8x64:8x64"},
    )
    assert engine.attestation.summary()["proven"] == 2
    name = {"fp16": "Half", "bf16": "BFloat16"}[dtype]
    assert all(name in op.evidence for op in engine.attestation.ops)


def test_an_engine_of_a_transformer_in_halves(tmp_path):
    quantize(models.path("minilm"), "rtx-sm89").save(tmp_path / "m.onnx")
    names = ("input_ids", "attention_mask", "token_type_ids")
    engine = onnxq.build(
        tmp_path / "m.onnx",
        tmp_path / "m.engine",
        target="rtx-sm89",
        shapes=dict.fromkeys(names, "1x8:1x64:1x128"),
    )
    assert engine.attestation.summary()["proven"] == 36


def test_what_runs_no_bfloat16_refuses_it_early():
    with pytest.raises(TargetError, match=r"'ort-cpu' cannot run activations in bf16: .* kernels"):
        quantize(with_weights(MLP, 21), dtype="bf16")


def test_the_budget_counts_halves(tmp_path):
    model = with_weights(MLP.replace("64", "256"), 21)
    sizes = {}
    for dtype in ("fp32", "fp16"):
        result = quantize(model, dtype=dtype, size_budget=60_000)
        result.save(tmp_path / f"{dtype}.onnx")
        sizes[dtype] = (tmp_path / f"{dtype}.onnx").stat().st_size
    assert max(sizes.values()) <= 60_000
    plain = onnxq.quantize(model, preset="int4", target="ort-cpu", bits=2)
    halves = quantize(model, bits=2)
    assert halves.report.weight_bytes["after"] < plain.report.weight_bytes["after"]


def test_scales_are_of_the_new_type_and_have_to_fit():
    result = quantize(with_weights(MLP, 21))
    scales = [v for n, v in result.model.graph.initializers.items() if "scale" in n]
    assert [scale.dtype for scale in scales] == [HALF, HALF]
    large = with_weights(MLP, 21, w_up=np.full((64, 128), 1e7))
    with pytest.raises(ModelError, match="'w_up' is too large for scales in float16"):
        quantize(large).model.graph.initializers["w_up_scales"].const_value.numpy()
    bfloat = quantize(large, "ort-cuda", "bf16").model.graph.initializers["w_up_scales"]
    assert bfloat.const_value.numpy().astype(np.float32).max() > 5e5


def test_the_model_given_stays_as_it_is():
    model = with_weights(MLP, 21)
    before = str(model)
    quantize(model)
    assert str(model) == before
