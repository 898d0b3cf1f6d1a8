"""The least damage within a budget: of each thing one option, each with a cost and a damage.

Of each thing only the options on the lower convex hull of damage over cost are taken. From the
cheapest of all, the step that takes away most damage per cost is taken again and again, as long as
it fits: no choice of the cost reached does less damage, and the budget is missed by less than a
step.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TypeAlias

Option: TypeAlias = tuple[float, float]  # cost, damage


def choose(things: Sequence[Sequence[Option]], budget: float) -> list[int]:
    """The index of the option chosen for each thing; the cheapest ones if nothing else fits.

    Args:
        things: The options of each.
        budget: Of the sum of costs.
    """
    hulls = [_hull(options) for options in things]
    chosen = [0] * len(things)
    left = budget - sum(options[hull[0]][0] for options, hull in zip(things, hulls, strict=True))
    steps: list[tuple[float, int]] = []

    def push(thing: int) -> None:
        hull, at = hulls[thing], chosen[thing]
        if at + 1 < len(hull):
            slope = _slope(things[thing][hull[at]], things[thing][hull[at + 1]])
            heapq.heappush(steps, (slope, thing))

    for thing in range(len(things)):
        push(thing)
    while steps:
        _, thing = heapq.heappop(steps)
        hull, at = hulls[thing], chosen[thing]
        cost = things[thing][hull[at + 1]][0] - things[thing][hull[at]][0]
        if cost <= left:
            left -= cost
            chosen[thing] += 1
            push(thing)
    return [hull[at] for hull, at in zip(hulls, chosen, strict=True)]


def _hull(options: Sequence[Option]) -> list[int]:
    """Those of ever more cost, ever less damage, and ever less gain."""
    hull: list[int] = []
    for index in sorted(range(len(options)), key=lambda i: options[i]):
        if hull and options[index][1] >= options[hull[-1]][1]:
            continue
        while len(hull) > 1 and _slope(options[hull[-2]], options[hull[-1]]) >= _slope(
            options[hull[-1]], options[index]
        ):
            hull.pop()
        hull.append(index)
    return hull


def _slope(a: Option, b: Option) -> float:
    """The change of damage per cost, which is negative."""
    return (b[1] - a[1]) / (b[0] - a[0]) if b[0] > a[0] else float("-inf")
