"""Ops that read one weight and quantize it alike: one matrix of codes is stored for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from onnxq.passes.plan import PlannedOp
from onnxq.types import Array


def by_stored_weight(ops: Iterable[PlannedOp]) -> list[list[PlannedOp]]:
    """The ops, those together that have the same codes."""
    shared: dict[object, list[PlannedOp]] = {}
    for op in ops:
        shared.setdefault((op.operands.weight, op.weight, op.algorithm), []).append(op)
    return list(shared.values())


def common_moment(
    ops: Iterable[PlannedOp], inputs: Mapping[str, str], moments: Mapping[str, Array]
) -> Array | None:
    """The sum of the second moments of what `ops` multiply one weight by: [K, K].

    Args:
        ops: From `by_stored_weight`.
        inputs: The name of the activation of each op, by the op's name.
        moments: By the name of the activation, where it is known.

    Returns:
        None if none is known.
    """
    names = dict.fromkeys(inputs[op.node] for op in ops)
    found = [moments[name] for name in names if name in moments]
    return np.sum(found, axis=0) if len(found) > 1 else found[0] if found else None
