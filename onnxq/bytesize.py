"""Numbers of bytes as people write them."""

from __future__ import annotations

import re

from onnxq.errors import RecipeError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {unit: 2 ** (10 * index) for index, unit in enumerate(_UNITS)}


def in_bytes(given: int | str | None, what: str = "memory limit") -> int | None:
    """A number of bytes, such as 2000000000, "2GB", "500 MB" or "1.5GiB"; None for none given.

    Args:
        given: The number, or text.
        what: It is for, in words.

    Raises:
        RecipeError: It is no number of bytes, or not positive.
    """
    if given is None:
        return None
    text = str(given).strip().upper()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text)
    found = 0
    if match is not None:
        number, unit, binary = match.groups()
        found = int(float(number) * (_BINARY if binary else _UNITS)[unit])
    if found <= 0:
        raise RecipeError(f"The {what} is '{given}'.", "Write 2GB or 500MB, for example.")
    return found
