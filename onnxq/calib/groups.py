"""Taps in groups that fit into memory: each group is a run of its own over the feeds.

How large a tap is shows in the first feed, which runs once with nothing but the sizes as outputs.
Later feeds may be larger: a limit is for feeds about as large as the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from onnxq.errors import DataError, RecipeError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {unit: 2 ** (10 * index) for index, unit in enumerate(_UNITS)}


def in_bytes(limit: int | str | None) -> int | None:
    """A number of bytes, such as 2000000000, "2GB", "500 MB" or "1.5GiB"; None for no limit.

    Raises:
        RecipeError: It is none, or not positive.
    """
    if limit is None:
        return None
    text = str(limit).strip().upper()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text)
    found = 0
    if match is not None:
        number, unit, binary = match.groups()
        found = int(float(number) * (_BINARY if binary else _UNITS)[unit])
    if found <= 0:
        raise RecipeError(f"The memory limit is '{limit}'.", "Write 2GB or 500MB, for example.")
    return found


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
