"""The least squared error: never worse than rounding to nearest, and worth it on real weights."""

import data
import models
import numpy as np
import pytest
from embeddings_int4 import embeddings
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from text_lines import EVALUATION

import onnxq
from onnxq.passes.weights import get, mse, rtn
from onnxq.types import PerAxis, PerBlock, QuantSpec

SPECS = [
    QuantSpec("int4", PerBlock(0, 4)),
    QuantSpec("uint4", PerBlock(1, 4), symmetric=False),
    QuantSpec("int8", PerAxis(1)),
]


def squared(quantized, weight):
    def expand(array):
        if isinstance(quantized.spec.granularity, PerAxis):
            return array[None]
        axis, size = quantized.spec.granularity.axis, quantized.spec.granularity.size
        return np.repeat(array, size, axis)[: weight.shape[0], : weight.shape[1]]

    zero = expand(quantized.params.zero_point).astype(np.float64)
    values = (quantized.codes - zero) * expand(quantized.params.scale).astype(np.float64)
    return float(((values - weight) ** 2).sum())


@pytest.mark.parametrize("spec", SPECS, ids=str)
@given(
    weight=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(-100, 100, width=32),
    )
)
def test_never_worse_than_round_to_nearest(spec, weight):
    nearest, least = rtn.quantize(weight, spec), mse.quantize(weight, spec)
    assert least.codes.shape == weight.shape
    bound = squared(nearest, weight)
    assert squared(least, weight) <= bound * (1 + 1e-5) + 1e-12 * max(1, np.abs(weight).max() ** 2)


def test_a_known_block():
    """The scale of the range is 1; a smaller one rounds the fifteen others to their place."""
    weight = np.r_[np.full(15, 0.9), -8.0].astype(np.float32).reshape(-1, 1)
    spec = QuantSpec("int4", PerBlock(0, 16))
    assert rtn.quantize(weight, spec).params.scale.item() == 1
    assert mse.quantize(weight, spec).params.scale.item() < 1
    assert squared(mse.quantize(weight, spec), weight) < squared(rtn.quantize(weight, spec), weight)


def test_found_by_name():
    assert get("mse") is mse.quantize


def test_symmetric_embeddings_gain(tmp_path):
    sentences = data.sentences(200, EVALUATION)
    model = models.path("minilm")
    reference = embeddings(model, sentences)
    result = onnxq.quantize(
        model,
        preset="int4",
        target="rtx-sm89",
        recipe={"ops": ["MatMul"], "weights": {"algorithm": "mse"}},
    )
    result.save(tmp_path / "m.onnx")
    found = embeddings(tmp_path / "m.onnx", sentences)
    assert float(np.mean(np.sum(reference * found, axis=1))) >= 0.963
