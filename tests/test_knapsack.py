"""Options within a budget, beside all possible choices."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.knapsack import choose

OPTIONS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100)), min_size=1, max_size=4)
THINGS = st.lists(OPTIONS, min_size=1, max_size=4)


def totals(things, chosen):
    picked = [options[index] for options, index in zip(things, chosen, strict=True)]
    return sum(cost for cost, _ in picked), sum(damage for _, damage in picked)


def every(things):
    return [totals(things, chosen) for chosen in product(*(range(len(t)) for t in things))]


@given(things=THINGS, budget=st.integers(0, 200))
def test_the_budget_is_met_if_it_can_be(things, budget):
    cost, _ = totals(things, choose(things, budget))
    assert cost <= max(budget, min(cost for cost, _ in every(things)))


@given(things=THINGS)
def test_without_limits_the_damage_is_the_least_and_cheapest(things):
    best = min((damage, cost) for cost, damage in every(things))
    cost, damage = totals(things, choose(things, 1000))
    assert (damage, cost) == best


@pytest.mark.parametrize(
    ("budget", "expected"), [(0, [0, 0]), (2, [0, 0]), (4, [0, 1]), (8, [1, 1]), (20, [2, 1])]
)
def test_the_step_of_most_gain_per_cost_comes_first(budget, expected):
    things = [[(1, 10.0), (4, 4.0), (9, 1.0)], [(1, 10.0), (3, 2.0), (5, 2.0)]]
    assert choose(things, budget) == expected


def test_options_above_the_hull_are_not_taken():
    assert choose([[(1, 10.0), (5, 9.0), (6, 0.0)]], 5) == [0]
    assert choose([[(1, 10.0), (5, 9.0), (6, 0.0)]], 6) == [2]
