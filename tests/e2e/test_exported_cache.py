"""Attention with a cache that torch exported: keys and values are joined to those of the past."""

import numpy as np
import pytest
from graphs import compute

import onnxq

HEADS, SIZE = 4, 16
WIDTH = HEADS * SIZE
RNG = np.random.default_rng(0)


def feed(tokens, past=None, batch=2):
    nothing = np.zeros((batch, HEADS, 0, SIZE), np.float32)
    key, value = (nothing, nothing) if past is None else past
    x = RNG.normal(size=(batch, tokens, WIDTH)).astype(np.float32)
    return {"x": x, "past_key": key, "past_value": value}


@pytest.fixture(scope="module")
def model():
    import torch

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            linear = torch.nn.Linear
            self.query, self.key, self.value = (linear(WIDTH, WIDTH) for _ in range(3))
            self.output = linear(WIDTH, WIDTH, bias=False)

        def forward(self, x, past_key, past_value):
            batch, tokens, _ = x.shape
            query, key, value = (
                layer(x).reshape(batch, tokens, HEADS, SIZE).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            key = torch.cat([past_key, key], dim=2)
            value = torch.cat([past_value, value], dim=2)
            place = torch.arange(key.shape[2])
            seen = place <= place[-tokens:, None]
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, seen)
            return self.output(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH)), key, value

    torch.manual_seed(0)
    free = torch.export.Dim.DYNAMIC
    cache = {0: free, 2: free}
    program = torch.onnx.export(
        Block().eval(),
        (torch.randn(2, 5, WIDTH), *(torch.randn(2, HEADS, 3, SIZE) for _ in range(2))),
        dynamo=True,
        input_names=["x", "past_key", "past_value"],
        output_names=["y", "key", "value"],
        dynamic_shapes={"x": {0: free, 1: free}, "past_key": cache, "past_value": cache},
        verbose=False,
    )
    return program.model


@pytest.mark.parametrize("calibration", [None, [feed(24, batch=4) for _ in range(4)]])
def test_int4(model, calibration):
    result = onnxq.quantize(model, preset="int4", target="ort-cpu", calibration=calibration)
    reasons = {d.op_type: d.reason for d in result.report.decisions if d.action == "float"}
    assert result.report.counts()["int4"] == 4
    assert reasons["MatMul"] == "both of its operands are activations"
    first = feed(6)
    y, *present = compute(result.model, **first)
    assert present[0].shape == (2, HEADS, 6, SIZE)
    np.testing.assert_allclose(y, compute(model, **first)[0], atol=0.2)
    next_token = feed(1, present)
    found, *present = compute(result.model, **next_token)
    assert present[0].shape == (2, HEADS, 7, SIZE)
    both = np.concatenate([first["x"], next_token["x"]], axis=1)
    whole, *_ = compute(result.model, **(feed(7) | {"x": both}))
    np.testing.assert_allclose(found[:, 0], whole[:, -1], atol=1e-5)


def test_the_cache_in_halves(model):
    quantized = [
        onnxq.quantize(model, preset="int4", target="ort-cpu", activation_dtype=dtype).model
        for dtype in ("fp32", "fp16")
    ]
    past = RNG.normal(size=(2, 2, HEADS, 3, SIZE)).astype(np.float32)
    given = feed(2, past)
    halves = {k: v if k == "x" else v.astype(np.float16) for k, v in given.items()}
    whole, found = compute(quantized[0], **given), compute(quantized[1], **halves)
    assert [array.dtype for array in found] == [np.float32, np.float16, np.float16]
    for one, other in zip(whole, found, strict=True):
        np.testing.assert_allclose(other, one, atol=0.05)  # a code or two may differ
