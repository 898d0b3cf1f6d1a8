"""The judge of language models agrees with its definition."""

import numpy as np
import pytest
from language import _sums


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def test_a_model_is_no_distance_from_itself():
    p = log_softmax(np.random.default_rng(0).normal(size=(6, 10)))
    _, kl, same = _sums(p, p, np.arange(6))
    assert kl == 0
    assert same == 6


def test_sums_are_those_of_the_definition():
    p = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    q = np.log([[0.25, 0.5, 0.25], [0.1, 0.2, 0.7], [0.2, 0.7, 0.1]])
    loss, kl, same = _sums(p, q, np.array([0, 1, 2]))
    assert loss == pytest.approx(-np.log(0.5) - np.log(0.7))  # of token 1 after 0, of 2 after 1
    assert kl == pytest.approx(
        0.5 * np.log(2) - 0.25 * np.log(2) + 0.1 * np.log(0.5) + 0.8 * np.log(8 / 7)
    )
    assert same == 2
