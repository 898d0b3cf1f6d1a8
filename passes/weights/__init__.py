"""Weight algorithms, one file each: arrays in, a `QTensor` out. They never see a graph.

The name of an algorithm is the name of its module, which defines

    ALGORITHM(weight: Array, spec: QuantSpec) -> QTensor

and quantizes each output of a matrix by itself, since it may get some of them at a time; or, if it
goes by the second moment of the activation that the weight is multiplied by,

    ALGORITHM = DataAware(quantize), with quantize(weight, spec, second_moment) -> QTensor

and "gptq+hqq" is gptq with the scales and zero points that hqq looks for.

It raises `onnxq.errors.NotFiniteError` if the weight holds NaN or infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnxq import registry
from onnxq.errors import RecipeError
from onnxq.passes.weights._blocks import Search
from onnxq.passes.weights._stack import by_matrix
from onnxq.types import Array, QTensor, QuantSpec

__all__ = ["DataAware", "WeightAlgorithm", "first_name", "get", "needs_data"]

WeightAlgorithm: TypeAlias = Callable[[Array, QuantSpec], QTensor]
_COMPOSED = "+"  # between the name of an algorithm and that of the one whose grids it uses
_GRIDS = ("hqq", "kquant", "mse", "rtn")  # the algorithms that define `search` too


@dataclass(frozen=True)
class DataAware:
    """An algorithm that needs the second moment of the activation.

    Attributes:
        quantize: Takes a matrix, a spec and the second moment, [K, K] along the reduced axis. Of a
            stack, it is asked for each matrix.
        on_grids: The same on the grids that a search finds, if it can do that.
    """

    quantize: Callable[[Array, QuantSpec, Array], QTensor]
    on_grids: Callable[[Array, QuantSpec, Array, Search], QTensor] | None = None


def get(name: str, second_moment: Array | None = None) -> WeightAlgorithm:
    """The weight algorithm called `name`.

    Args:
        name: Of its module, or of two joined by "+": of one that can use the grids of the other.
        second_moment: Of the activation, for an algorithm that needs it.

    Raises:
        RecipeError: There is none, and the message proposes the nearest; or it needs a second
            moment, and there is none.
    """
    algorithm = _load(name)
    if not isinstance(algorithm, DataAware):
        return algorithm
    if second_moment is None:
        raise RecipeError(
            f"The weight algorithm {name} needs second moments of activations, which preset int4 "
            "alone collects.",
            "Choose preset int4 and give it calibration data, or another algorithm.",
        )
    quantize = algorithm.quantize
    return lambda weight, spec: by_matrix(
        lambda matrix, of_one: quantize(matrix, of_one, second_moment), weight, spec
    )


def needs_data(name: str) -> bool:
    """Whether the algorithm called `name` needs the second moment of the activation.

    Raises:
        RecipeError: There is none; the message proposes the nearest.
    """
    return isinstance(_load(name), DataAware)


def first_name(name: str) -> str:
    """The algorithm that finds the codes: "gptq" of "gptq+hqq"."""
    return name.partition(_COMPOSED)[0]


def _load(name: str) -> WeightAlgorithm | DataAware:
    first, composed, grid = name.partition(_COMPOSED)
    algorithm = _attribute(first, "ALGORITHM")
    if not composed:
        return algorithm  # type: ignore[no-any-return]
    if not isinstance(algorithm, DataAware) or algorithm.on_grids is None or grid not in _GRIDS:
        raise RecipeError(
            f"There is no weight algorithm '{name}'.",
            f"gptq alone takes the grids of another one: {', '.join(f'gptq+{g}' for g in _GRIDS)}.",
        )
    on_grids, search = algorithm.on_grids, _attribute(grid, "search")
    return DataAware(lambda weight, spec, moment: on_grids(weight, spec, moment, search()))


def _attribute(name: str, attribute: str) -> Any:  # noqa: ANN401
    return registry.load("onnxq.passes.weights", name, attribute, RecipeError)
