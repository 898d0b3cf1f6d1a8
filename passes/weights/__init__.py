"""Weight algorithms, one file each: arrays in, a `QTensor` out. They never see a graph.

The name of an algorithm is the name of its module, which defines

    ALGORITHM(weight: Array, spec: QuantSpec) -> QTensor

It raises `onnxq.errors.NotFiniteError` if the weight holds NaN or infinity.
"""

from collections.abc import Callable
from typing import TypeAlias

from onnxq import registry
from onnxq.errors import RecipeError
from onnxq.types import Array, QTensor, QuantSpec

__all__ = ["WeightAlgorithm", "get"]

WeightAlgorithm: TypeAlias = Callable[[Array, QuantSpec], QTensor]


def get(name: str) -> WeightAlgorithm:
    """The weight algorithm called `name`.

    Raises:
        RecipeError: There is none; the message proposes the nearest.
    """
    algorithm: WeightAlgorithm = registry.load(
        "onnxq.passes.weights", name, "ALGORITHM", RecipeError
    )
    return algorithm
