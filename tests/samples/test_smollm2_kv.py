"""The Llama graph with a KV cache computes what transformers computes."""

import numpy as np
import onnx_ir as ir
import pytest
import smollm2_kv

import onnxq
from onnxq import runtime

CONFIG = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
}
IDS = np.random.default_rng(0).integers(0, 96, (1, 12))


@pytest.fixture(scope="module")
def original():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, initializer_range=0.2)).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(IDS)).logits.numpy()
    return {name: weight.numpy() for name, weight in model.state_dict().items()}, logits


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float16, 0.1)])
@pytest.mark.parametrize("step", [1, 5, 12])
def test_logits_for_any_number_of_tokens_at_once(original, packed, dtype, tolerance, step):
    weights, expected = original
    model = smollm2_kv.build(CONFIG, weights, dtype, packed=packed)
    session = runtime.session(model)
    names = [spec.name for spec in session.get_inputs()][2:]
    cache = dict.fromkeys(names, np.zeros((1, 2, 0, 16), dtype))
    found = []
    for start in range(0, IDS.shape[1], step):
        ids = IDS[:, start : start + step]
        mask = np.ones((1, start + ids.shape[1]), np.int64)
        logits, *present = session.run(None, {"input_ids": ids, "attention_mask": mask, **cache})
        cache = dict(zip(names, present, strict=True))
        found.append(logits)
    assert cache[names[0]].shape == (1, 2, 12, 16)
    assert cache[names[0]].dtype == dtype
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=tolerance)


def feed(ids):
    cache = np.zeros((1, 2, 0, 16), np.float32)
    names = (f"past_key_values.{layer}.{word}" for layer in range(2) for word in ("key", "value"))
    tokens = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return tokens | dict.fromkeys(names, cache)


def test_int4_with_data_of_an_empty_cache(original):
    weights, expected = original
    model = smollm2_kv.build(CONFIG, weights)
    rng = np.random.default_rng(1)
    calibration = [feed(rng.integers(0, 96, (1, 32))) for _ in range(16)]
    noise = []
    for given in (None, calibration):
        result = onnxq.quantize(model, preset="int4", target="ort-cpu", calibration=given)
        assert result.report.counts()["int4"] == 2 * 5 + 1  # the embedding is small
        found = runtime.session(result.model).run(["logits"], feed(IDS))[0]
        noise.append(np.square(found - expected).mean())
    assert noise[1] < noise[0]


def test_halves_and_their_caches(original):
    weights, _ = original
    result = onnxq.quantize(
        smollm2_kv.build(CONFIG, weights), preset="int4", target="ort-cpu", activation_dtype="fp16"
    )
    tokens, *cache = result.model.graph.outputs
    assert tokens.dtype == ir.DataType.FLOAT
    assert {value.dtype for value in cache} == {ir.DataType.FLOAT16}
    assert {value.dtype for value in result.model.graph.inputs[2:]} == {ir.DataType.FLOAT16}
    wide = onnxq.quantize(smollm2_kv.build(CONFIG, weights), preset="int4", target="ort-cpu")
    first = {n: a.astype("f2") if a.dtype == "f4" else a for n, a in feed(IDS).items()}
    found = runtime.session(result.model).run(None, first)
    assert found[1].dtype == np.float16
    expected = runtime.session(wide.model).run(["logits"], feed(IDS))[0]
    np.testing.assert_allclose(found[0], expected, atol=0.1)
