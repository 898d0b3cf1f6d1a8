"""Keep a library from printing what it logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(logger: str, level: int = logging.ERROR) -> Iterator[None]:
    """While the block runs, the logger named keeps what is below `level` to itself."""
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(level)
    try:
        yield
    finally:
        found.setLevel(before)
