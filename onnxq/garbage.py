"""Python's collector of garbage, kept from looking at graphs too often.

Graphs are many small objects that live on. By Python's default of 700 new objects a tenth of the
CPU goes into looking for garbage among them, and more in a large program.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW_OBJECTS = 10_000


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Garbage is looked for after 10,000 new objects at the earliest while the block runs.

    The threshold is that of the process, and is put back.
    """
    first, *others = before = gc.get_threshold()
    if 0 < first < _NEW_OBJECTS:  # 0 is never
        gc.set_threshold(_NEW_OBJECTS, *others)
    try:
        yield
    finally:
        gc.set_threshold(*before)
