"""The input shapes that an engine is built for: smallest, most common, largest.

Written as "1x3x48x32:1x3x48x320:1x3x48x1280", or as one shape for all three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from onnxq.errors import EngineError

Shape: TypeAlias = tuple[int, ...]

_SHAPE = re.compile(r"\d+(x\d+)*")
# What a dynamic dimension is likely to be, by axis, for the line that an error proposes.
_IMAGE = {0: ("1", "1", "8"), 2: ("32", "320", "1280"), 3: ("32", "320", "1280")}
_SEQUENCE = {0: ("1", "1", "8")}
_OTHER = ("1", "128", "512")


@dataclass(frozen=True)
class Profile:
    """The shapes of one input."""

    smallest: Shape
    common: Shape
    largest: Shape

    def __str__(self) -> str:
        return ":".join("x".join(map(str, shape)) for shape in self.all())

    def all(self) -> tuple[Shape, Shape, Shape]:
        """The three shapes in order."""
        return self.smallest, self.common, self.largest


def profiles(model: ir.Model, given: Mapping[str, str]) -> dict[str, Profile]:
    """The profile of every input of `model`.

    Args:
        model: Its graph inputs are read, nothing else.
        given: "MIN:OPT:MAX" by input name, for every input that has a dynamic dimension.

    Raises:
        EngineError: An input is missing or unknown, or a shape does not fit it.
    """
    inputs = {v.name or "": v for v in model.graph.inputs if v.name not in model.graph.initializers}
    for name in given:
        if name not in inputs:
            raise EngineError(
                f"The model has no input '{name}'.", f"Its inputs are: {', '.join(inputs)}."
            )
    proposals = _proposals(inputs.values())
    missing = [v for name, v in inputs.items() if name not in given and not _is_static(v)]
    if missing:
        lines = " ".join(f"--shape {v.name}={proposals[v]}" for v in missing)
        named = ", ".join(f"'{v.name}' {v.shape}" for v in missing)
        raise EngineError(
            f"Dynamic dimensions need a shape: input {named}.", f"Add for example: {lines}"
        )
    found = {
        name: _parse(value, given[name], proposals[value]) if name in given else _static(value)
        for name, value in inputs.items()
    }
    _check_symbols(inputs, found)
    return found


def _dims(value: ir.Value) -> list[int | str | None]:
    """The dimensions of an input: sizes, symbols, and None where nothing is said."""
    if value.shape is None:
        raise EngineError(
            f"Input '{value.name}' has no shape at all, not even a rank.", "Export it with one."
        )
    return [dim if isinstance(dim, int) else dim.value or None for dim in value.shape]


def _is_static(value: ir.Value) -> bool:
    return all(isinstance(dim, int) for dim in _dims(value))


def _static(value: ir.Value) -> Profile:
    shape = tuple(dim for dim in _dims(value) if isinstance(dim, int))
    return Profile(shape, shape, shape)


def _proposals(inputs: Iterable[ir.Value]) -> dict[ir.Value, str]:
    """A likely "MIN:OPT:MAX" for each input, the same for dimensions of one name."""
    sizes: dict[str, tuple[str, str, str]] = {}
    proposals = {}
    for value in inputs:
        dims = _dims(value)
        likely = _IMAGE if len(dims) == 4 else _SEQUENCE
        columns = []
        for axis, dim in enumerate(dims):
            default = (str(dim),) * 3 if isinstance(dim, int) else likely.get(axis, _OTHER)
            columns.append(sizes.setdefault(dim, default) if isinstance(dim, str) else default)
        proposals[value] = ":".join("x".join(shape) for shape in zip(*columns, strict=True))
    return proposals


def _parse(value: ir.Value, text: str, proposal: str) -> Profile:
    dims = _dims(value)
    parts = text.split(":")
    example = f"Example: --shape {value.name}={proposal}"
    if len(parts) not in (1, 3) or not all(_SHAPE.fullmatch(part) for part in parts):
        raise EngineError(f"Shape '{text}' of input '{value.name}' is not MIN:OPT:MAX.", example)
    shapes = [tuple(map(int, part.split("x"))) for part in parts]
    smallest, common, largest = shapes if len(shapes) == 3 else shapes * 3
    for shape in (smallest, common, largest):
        fits = len(shape) == len(dims) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(dims, shape, strict=True)
        )
        if not fits:
            written = "x".join(map(str, shape))
            raise EngineError(
                f"Shape {written} does not fit input '{value.name}' of shape {value.shape}.",
                example,
            )
    if not all(a <= b <= c for a, b, c in zip(smallest, common, largest, strict=True)):
        raise EngineError(
            f"Shapes '{text}' of input '{value.name}' do not grow from MIN over OPT to MAX."
        )
    return Profile(smallest, common, largest)


def _check_symbols(inputs: Mapping[str, ir.Value], found: Mapping[str, Profile]) -> None:
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, value in inputs.items():
        for axis, dim in enumerate(_dims(value)):
            if not isinstance(dim, str):
                continue
            sizes = tuple(shape[axis] for shape in found[name].all())
            first, expected = seen.setdefault(dim, (name, sizes))
            if sizes != expected:
                raise EngineError(
                    f"Dimension '{dim}' is {sizes} in input '{name}' and {expected} in '{first}'.",
                    "Dimensions of one name must have the same sizes.",
                )
