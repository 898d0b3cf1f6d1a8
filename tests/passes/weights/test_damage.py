"""The damage that is expected of a spec, beside the error of the output on data."""

import numpy as np
import pytest

from onnxq.passes.weights import get
from onnxq.passes.weights._damage import damages
from onnxq.types import PerBlock, QuantSpec


def specs(axis):
    return [
        QuantSpec(f"uint{bits}", PerBlock(axis, size), symmetric=False)
        for bits, size in ((2, 64), (4, 64), (4, 32), (8, 128))
    ]


def output_noise(weight, spec, inputs):
    """Of the whole weight [K, N]."""
    q = get("auto")(weight, spec)
    scale, zero = (
        np.repeat(each.astype(float), spec.granularity.size, 0)[: len(weight)]
        for each in (q.params.scale, q.params.zero_point)
    )
    expected = inputs @ weight
    return (
        np.square(inputs @ ((q.codes - zero) * scale) - expected).sum() / np.square(expected).sum()
    )


@pytest.mark.parametrize("columns", [40, 700])
def test_it_is_the_noise_of_the_output(columns):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(96, columns)).astype(np.float32)
    inputs = rng.normal(size=(400, 96)) @ rng.normal(size=(96, 96))
    found = damages(weight, specs(0), inputs.T @ inputs)
    exact = [output_noise(weight, spec, inputs) for spec in specs(0)]
    np.testing.assert_allclose(found, exact, rtol=1e-4 if columns <= 128 else 0.15)
    assert found == sorted(found, reverse=True)
    np.testing.assert_allclose(
        damages(np.ascontiguousarray(weight.T), specs(1), inputs.T @ inputs), found, rtol=1e-4
    )


def test_without_data_it_is_the_error_of_the_weight():
    weight = np.random.default_rng(1).normal(size=(64, 50)).astype(np.float16)
    np.testing.assert_allclose(
        damages(weight, specs(0), None), damages(weight, specs(0), np.eye(64)), rtol=1e-5
    )


def test_a_weight_of_zeros_suffers_none():
    assert damages(np.zeros((64, 8), np.float32), specs(0), None) == [0.0] * 4
