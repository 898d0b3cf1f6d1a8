"""Made-up feeds, for trying a command line without data: the accuracy means nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxq.calib.inputs import InputSpec
from onnxq.types import Array

_FREE_BATCH = 1
_FREE_IMAGE_SIDE = 64  # a multiple of 32, the stride of most image models
_FREE = 16


def random_feeds(inputs: Sequence[InputSpec], count: int) -> Iterator[dict[str, Array]]:
    """The same `count` feeds at every call.

    Floats are standard normal; integers and booleans are 0 or 1, which is in range for token ids,
    masks and flags. A free dimension becomes 1 on axis 0, 64 on the last two axes of a rank-4
    input and 16 elsewhere; dimensions of one name get one size. One whose name starts with "past"
    becomes 0: what a model with a cache has seen before the first tokens.
    """
    generator = np.random.default_rng(0)
    shapes = _shapes(inputs)
    for _ in range(count):
        yield {
            spec.name: (
                generator.standard_normal(shapes[spec.name])
                if spec.dtype.is_floating_point()
                else generator.integers(0, 2, shapes[spec.name])
            ).astype(spec.dtype.numpy())
            for spec in inputs
        }


def _shapes(inputs: Sequence[InputSpec]) -> dict[str, tuple[int, ...]]:
    named: dict[str, int] = {}
    shapes = {}
    for spec in inputs:
        shape = spec.shape if spec.shape is not None else (None,)
        sizes = []
        for axis, dim in enumerate(shape):
            size = dim if isinstance(dim, int) else _default(dim, axis, len(shape))
            sizes.append(named.setdefault(dim, size) if isinstance(dim, str) else size)
        shapes[spec.name] = tuple(sizes)
    return shapes


def _default(name: str | None, axis: int, rank: int) -> int:
    if name is not None and name.startswith("past"):
        return 0
    if axis == 0:
        return _FREE_BATCH
    return _FREE_IMAGE_SIDE if rank == 4 and axis >= 2 else _FREE
