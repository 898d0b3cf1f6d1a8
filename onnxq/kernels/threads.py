"""Work on numbered items, shared by threads: kernels run without the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

from onnxq.errors import RecipeError

VARIABLE = "ONNXQ_THREADS"
_Result = TypeVar("_Result")
_sharing: ContextVar[bool] = ContextVar("sharing", default=False)


def count() -> int:
    """How many threads kernels use: $ONNXQ_THREADS, else as many as this process has cores.

    Raises:
        RecipeError: The variable is not a positive integer.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return len(os.sched_getaffinity(0))
    if not asked.isascii() or not asked.isdigit() or int(asked) < 1:
        raise RecipeError(
            f"${VARIABLE} is '{asked}', not a number of threads.",
            "Set it to 1 or more, or unset it.",
        )
    return int(asked)


def shared(work: Callable[[int, int], _Result], items: int) -> list[_Result]:
    """The results of work(first, last) over ranges that make up range(items).

    What is shared inside of shared work is done by the thread that came to it.
    """
    threads = min(count(), items)
    if threads <= 1 or _sharing.get():
        return [work(0, items)]
    # Several ranges a thread: one that was held up does not hold up the others.
    cuts = [items * i // (4 * threads) for i in range(4 * threads + 1)]
    with ThreadPoolExecutor(threads, initializer=_sharing.set, initargs=(True,)) as pool:
        return list(pool.map(work, cuts[:-1], cuts[1:]))
