"""Codes packed as rows of bytes, one row per output."""

from __future__ import annotations

import numpy as np

from onnxq.types import Array


def pack_rows(
    codes: Array, rows_are_outputs: bool, bits: int, shift: int, padding: int, row_bytes: int
) -> Array:
    """Pack codes of `bits` bits along the reduced axis, low bits first.

    Args:
        codes: uint8 [outputs, reduced], or [reduced, outputs].
        rows_are_outputs: Which of them.
        bits: 2, 4 or 8.
        shift: Added to every code, modulo 256.
        padding: The code that fills up the rows, as stored.
        row_bytes: Bytes per output.

    Returns:
        uint8 [outputs, row_bytes].
    """
    from onnxq.kernels import packing, threads  # noqa: PLC0415

    codes = np.ascontiguousarray(codes)
    outputs = codes.shape[0 if rows_are_outputs else 1]
    packed = np.empty((outputs, row_bytes), np.uint8)

    def work(first: int, last: int) -> None:
        packing.pack(
            codes, rows_are_outputs, bits, np.uint8(shift % 256), np.uint8(padding), packed,
            first, last,
        )  # fmt: skip

    threads.shared(work, outputs)
    return packed


def unpack_rows(
    packed: Array, rows_are_outputs: bool, bits: int, shift: int, reduced: int
) -> Array:
    """The codes that `pack_rows` packed.

    Args:
        packed: uint8 [outputs, row_bytes].
        rows_are_outputs: Whether codes shall be [outputs, reduced]; otherwise [reduced, outputs].
        bits: 2, 4 or 8.
        shift: Added to every code, modulo 256.
        reduced: Codes of an output.
    """
    from onnxq.kernels import packing, threads  # noqa: PLC0415

    packed = np.ascontiguousarray(packed)
    outputs = len(packed)
    codes = np.empty((outputs, reduced) if rows_are_outputs else (reduced, outputs), np.uint8)

    def work(first: int, last: int) -> None:
        packing.unpack(packed, rows_are_outputs, bits, np.uint8(shift % 256), codes, first, last)

    threads.shared(work, outputs)
    return codes
