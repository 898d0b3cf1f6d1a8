"""Taps in groups that fit into memory: each group is a run of its own over the feeds.

How large a tap is shows in the first feed, which runs once with nothing but the sizes as outputs.
Later feeds may be larger: a limit is for feeds about as large as the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnxq.errors import DataError


def split(
    tensors: Mapping[str, int], sizes: Mapping[str, int], limit: int
) -> list[Mapping[str, int]]:
    """`tensors` in groups, in their order, whose sizes in bytes add up to at most `limit`.

    Raises:
        DataError: One tensor alone is larger.
    """
    groups: list[dict[str, int]] = [{}]
    room = limit
    for name, axis in tensors.items():
        if sizes[name] > limit:
            raise DataError(
                f"Tensor '{name}' takes {sizes[name]} bytes in the first feed; the memory limit "
                f"is {limit}.",
                "Raise the limit, or give smaller feeds.",
            )
        if sizes[name] > room:
            groups.append({})
            room = limit
        groups[-1][name] = axis
        room -= sizes[name]
    return [*groups]
