"""What a model takes as input, and whether a feed is that."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.errors import DataError, ModelError
from onnxq.types import Array


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: Its name.
        dtype: The type of its elements.
        shape: An int for a fixed dimension, a name or None for a free one; None when the model
            does not even state the rank.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype.numpy()} of any shape"
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.dtype.numpy()}[{dims}]"


def model_inputs(model: ir.Model) -> list[InputSpec]:
    """The inputs that have to be fed: initializers that are listed as inputs too are left out.

    Raises:
        ModelError: An input is not a tensor of numbers.
    """
    specs = []
    for value in model.graph.inputs:
        name = value.name or ""
        if name in model.graph.initializers:
            continue
        if not isinstance(value.type, ir.TensorType) or value.dtype == ir.DataType.STRING:
            raise ModelError(
                f"Input '{name}' has the type {value.type}; only tensors of numbers can be fed.",
                "Export the model with such tensors as its inputs.",
            )
        shape = None
        if value.shape is not None:
            shape = tuple(_dimension(dim) for dim in value.shape)
        specs.append(InputSpec(name, value.type.dtype, shape))
    return specs


def check_feed(inputs: Sequence[InputSpec], feed: Any, label: str) -> dict[str, Array]:  # noqa: ANN401
    """`feed` as a dict in the order of the inputs, if it fits.

    Args:
        inputs: What the model takes.
        feed: What the source gave.
        label: What the feed is called in an error.

    Raises:
        DataError: It does not fit.
    """
    if not isinstance(feed, Mapping):
        raise DataError(
            f"{_sentence(label)} is a {type(feed).__name__}; expected a dict that maps input names "
            "to numpy arrays.",
            f"Yield {{'{inputs[0].name}': array}}." if inputs else None,
        )
    expected = [spec.name for spec in inputs]
    for name in feed:
        if name not in expected:
            near = difflib.get_close_matches(str(name), expected, n=1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise DataError(
                f"{_sentence(label)} has '{name}', which is not an input of the model.",
                f"{hint}Inputs: {_list(inputs)}.",
            )
    for spec in inputs:
        if spec.name not in feed:
            raise DataError(
                f"{_sentence(label)} lacks the input '{spec.name}'.", f"Inputs: {_list(inputs)}."
            )
        _check_array(spec, feed[spec.name], label)
    return {name: feed[name] for name in expected}


def _dimension(dim: int | ir.SymbolicDim) -> int | str | None:
    if isinstance(dim, int):
        return dim if dim >= 0 else None  # some exporters write -1 for a free dimension
    return dim.value


def _check_array(spec: InputSpec, array: Any, label: str) -> None:  # noqa: ANN401
    where = f"{_sentence(label)}, input '{spec.name}': expected {spec}, found"
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where} a {type(array).__name__}.", "Give a numpy array.")
    found = f"{array.dtype}{list(array.shape)}"
    if array.dtype != spec.dtype.numpy():
        raise DataError(f"{where} {found}.", f"Convert it: array.astype('{spec.dtype.numpy()}').")
    if spec.shape is not None:
        if len(spec.shape) != array.ndim:
            raise DataError(
                f"{where} {found}: rank {array.ndim} instead of {len(spec.shape)}.",
                "Mind the batch axis: array[None] adds one."
                if array.ndim == len(spec.shape) - 1
                else "Reshape it.",
            )
        for axis, (fixed, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
            if isinstance(fixed, int) and fixed != size:
                raise DataError(
                    f"{where} {found}: axis {axis} is {size} instead of {fixed}.",
                    "Preprocess the data as for inference with this model.",
                )
    if spec.dtype.is_floating_point() and not np.isfinite(array).all():
        raise DataError(
            f"{_sentence(label)}, input '{spec.name}': expected finite values, "
            "found NaN or infinity.",
            "Check the preprocessing (a division by zero, an uninitialised array).",
        )


def _sentence(label: str) -> str:
    return label[:1].upper() + label[1:]


def _list(inputs: Sequence[InputSpec]) -> str:
    return ", ".join(f"'{spec.name}' {spec}" for spec in inputs)
