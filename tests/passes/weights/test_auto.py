"""Weights made of 4-bit codes keep them; others take a grid of least squares."""

import numpy as np
import pytest
from grids import dequantized
from hypothesis import given
from hypothesis import strategies as st

from onnxq.passes.weights import auto, kquant, mse
from onnxq.types import PerBlock, QuantSpec

SYMMETRIC = QuantSpec("int4", PerBlock(0, 32))
INTEGER = QuantSpec("uint4", PerBlock(0, 32), symmetric=False)
FLOAT = QuantSpec("uint4", PerBlock(0, 32), symmetric=False, float_zero_point=True)


def q4_0(generator, low=0, high=16):
    """Weights of a GGUF: scale * (code - 8), the scale in float16."""
    scale = generator.uniform(1e-4, 0.02, (4, 1, 24)).astype(np.float16).astype(np.float32)
    codes = generator.integers(low, high, (4, 32, 24))
    return (scale * (codes - 8).astype(np.float32)).reshape(128, 24)


def q4_1(generator):
    """scale * code + minimum, both in float16."""
    scale = generator.uniform(1e-4, 0.02, (4, 1, 24)).astype(np.float16).astype(np.float32)
    low = -generator.uniform(0, 0.1, (4, 1, 24)).astype(np.float16).astype(np.float32)
    codes = generator.integers(0, 16, (4, 32, 24)).astype(np.float32)
    return (scale * codes + low).reshape(128, 24)


def off(weight, spec):
    return np.abs(dequantized(auto.quantize(weight, spec)) - weight).max() / np.abs(weight).max()


@pytest.mark.parametrize("spec", [SYMMETRIC, INTEGER, FLOAT], ids=str)
@given(seed=st.integers(0, 1000), low=st.integers(0, 3), high=st.integers(12, 16))
def test_codes_around_an_integer_zero_point_are_kept(spec, seed, low, high):
    weight = q4_0(np.random.default_rng(seed), low, high)
    assert off(weight, spec) < 5e-7


@given(seed=st.integers(0, 1000))
def test_codes_with_a_minimum_are_kept_by_float_zero_points(seed):
    weight = q4_1(np.random.default_rng(seed))
    assert off(weight, FLOAT) < 5e-7
    assert off(weight, INTEGER) > 1e-3


def test_a_weight_that_is_partly_of_codes():
    generator = np.random.default_rng(0)
    weight = q4_0(generator)
    weight[32:64] = generator.normal(size=(32, 24)) / 50
    quantized, thorough = auto.quantize(weight, INTEGER), kquant.quantize(weight, INTEGER)
    error = np.abs(dequantized(quantized) - weight)
    assert error[:32].max() < 1e-7
    assert error[64:].max() < 1e-7
    least = np.abs(dequantized(thorough) - weight)[32:64]
    assert np.square(error[32:64]).mean() <= 1.01 * np.square(least).mean()


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize(("symmetric", "algorithm"), [(True, mse), (False, kquant)])
def test_a_third_of_the_effort_costs_a_hundredth_of_the_error(size, symmetric, algorithm):
    weight = np.random.default_rng(0).normal(size=(512, 200)).astype(np.float32)
    spec = QuantSpec("int4" if symmetric else "uint4", PerBlock(0, size), symmetric)
    errors = [
        np.square(dequantized(found.quantize(weight, spec)) - weight).mean()
        for found in (auto, algorithm)
    ]
    assert errors[0] <= 1.01 * errors[1]


@pytest.mark.parametrize(("symmetric", "algorithm"), [(True, mse), (False, kquant)])
def test_small_blocks_get_the_whole_effort(symmetric, algorithm):
    weight = np.random.default_rng(0).normal(size=(100, 40)).astype(np.float32)
    spec = QuantSpec("int4" if symmetric else "uint4", PerBlock(0, 16), symmetric)
    one, two = auto.quantize(weight, spec), algorithm.quantize(weight, spec)
    np.testing.assert_array_equal(one.codes, two.codes)
    np.testing.assert_array_equal(one.params.scale, two.params.scale)


def test_eight_bits_are_least_squares():
    weight = q4_0(np.random.default_rng(0))
    spec = QuantSpec("uint8", PerBlock(0, 32), symmetric=False)
    np.testing.assert_array_equal(
        auto.quantize(weight, spec).codes, kquant.quantize(weight, spec).codes
    )
