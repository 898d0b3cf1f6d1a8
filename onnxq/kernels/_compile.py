"""How the kernels are compiled: once per machine, without the interpreter lock, without fast-math.

A sum is written in the order in which it is computed, so results are the same bits for any number
of threads. Inner loops run over contiguous lanes (elements of neighbouring blocks), without
branches, which is what the compiler turns into vector instructions of whatever machine it is on.
"""

from __future__ import annotations

import sys
from functools import cache, partial
from typing import Any

from numba import njit, types


def kernel(*signatures: Any) -> Any:
    """Decorate a function to be compiled for `signatures`, or for its callers if there is none."""
    given = [list(signatures)] if signatures else []
    compiled: Any = partial(njit, *given, nogil=True, error_model="numpy")

    def compile_(function: Any) -> Any:
        try:
            return compiled(cache=True)(function)
        except (RuntimeError, OSError) as failure:
            if isinstance(failure, RuntimeError) and "cache" not in str(failure):
                raise
            _note_once()
            return compiled()(function)

    return compile_


@cache
def _note_once() -> None:
    print(
        "note: no folder for compiled code can be written (NUMBA_CACHE_DIR names one): it is "
        "compiled in memory, in every run",
        file=sys.stderr,
    )


def array(dtype: Any, ndim: int, *, written: bool = False) -> types.Array:
    """The type of a contiguous array, which may be read-only unless it is `written`."""
    return types.Array(dtype, ndim, "C", readonly=not written)


F32, I64, BOOL = types.float32, types.int64, types.boolean
ELEMENTS = array(F32, 3)  # [blocks, size, lanes]
PER_ROW = array(F32, 2)  # [blocks, size]
PER_BLOCK = array(F32, 2, written=True)  # [blocks, lanes]
# A search: elements, importance, scale, zero, lowest, highest, moves, rounds.
SEARCH = types.void(ELEMENTS, PER_ROW, PER_BLOCK, PER_BLOCK, F32, F32, BOOL, BOOL)
# How codes are chosen: elements, scale, zero, lowest, highest, rounds, origin, codes.
ENCODE = types.void(
    ELEMENTS, PER_BLOCK, PER_BLOCK, F32, F32, BOOL, I64, array(types.uint8, 3, written=True)
)
