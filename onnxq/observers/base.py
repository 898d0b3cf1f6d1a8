"""An observer: what is remembered of a tensor's values, and the scale that follows from it.

The state is a dict of arrays whose size does not depend on how much was seen. `merge` is
associative and commutative, and `update(state, a)` equals `merge(state, update(init(), a))`: the
order of the samples, and how they are split over batches, processes and machines, do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from onnxq.types import Array, QParams, QuantSpec

State: TypeAlias = dict[str, Array]


class Observer(Protocol):
    """Sums up the values of one tensor.

    The module `onnxq/observers/<name>.py` defines `OBSERVER`, a class (or function) that makes
    the observer from its settings.
    """

    @property
    def name(self) -> str:
        """The name of its module."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was made with, as JSON has it: `OBSERVER(**settings)` makes its equal."""
        ...

    def init(self) -> State:
        """The state of a tensor of which nothing was seen."""
        ...

    def update(self, state: State, array: Array) -> State:
        """The state after seeing `array`: real values [channels, ...], even empty.

        A value that is not finite shows in the state as one.

        Raises:
            DataError: Another number of channels than before.
        """
        ...

    def merge(self, left: State, right: State) -> State:
        """The state of what was seen for `left` together with what was seen for `right`."""
        ...

    def rescale(self, state: State, factors: Array) -> State:
        """The state of the tensor times `factors`, which are positive, one per channel."""
        ...

    def finish(self, state: State, spec: QuantSpec) -> QParams:
        """The scale and zero point for `spec`.

        Raises:
            DataError: Nothing was seen.
            RecipeError: The state does not tell this granularity.
        """
        ...

    def explain(self, state: State, spec: QuantSpec) -> str:
        """How `finish` finds the range, and how much it clips: "mse, clips 0.03 %".

        Raises:
            DataError, RecipeError: As `finish` does.
        """
        ...
