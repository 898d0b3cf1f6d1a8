"""Quantize a weight panel by panel: each is read once, in memory order, and its codes are written.

A panel is `group` blocks long and `width` lanes wide, small enough for the second-level cache. A
short last block is a panel of its own. Every panel is independent of the others, so the threads
that share them do not show in the result.
"""

from __future__ import annotations

import numpy as np
from numba import types

from onnxq.kernels import grids, panels
from onnxq.kernels._compile import BOOL, ENCODE, F32, I64, SEARCH, array, kernel

_U8, _U16, _U32 = types.uint8, types.uint16, types.uint32
_PARAMS = array(F32, 3, written=True)
_SMALLEST_HALF = np.float32(2.0**-24)
_SMALLEST_NORMAL_HALF = np.float32(2.0**-14)
_LARGEST_HALF = np.float32(65504)


@kernel(types.UniTuple(I64, 2)(I64, I64, I64, I64, I64))
def panel_counts(length, lanes, size, group, width):
    """How many panels there are along the rows and along the lanes."""
    whole = length // size
    along = (whole + group - 1) // group + (1 if length % size else 0)
    return along, (lanes + width - 1) // width


@kernel()
def round_to(values, drop):
    """Round to the nearest float16 (`drop` = 13) or bfloat16 (16), ties to even; 0: leave it."""
    if drop == 0:
        return
    bits = values.view(np.uint32)
    half = np.uint32((1 << (drop - 1)) - 1)
    for b in range(values.shape[0]):
        for l in range(values.shape[1]):
            exact = values[b, l]
            u = bits[b, l]
            bits[b, l] = (
                (u + half + ((u >> np.uint32(drop)) & np.uint32(1))) >> np.uint32(drop)
            ) << np.uint32(drop)
            if drop == 13:
                if abs(exact) < _SMALLEST_NORMAL_HALF:
                    values[b, l] = np.rint(exact / _SMALLEST_HALF) * _SMALLEST_HALF
                values[b, l] = min(max(values[b, l], -_LARGEST_HALF), _LARGEST_HALF)


@kernel(
    *(
        _U32(
            types.FunctionType(SEARCH), types.FunctionType(ENCODE), I64, I64,
            array(bits, 3), BOOL, bits, I64, I64, F32,
            array(F32, 1), I64, I64, I64,
            F32, F32, BOOL, BOOL, I64, I64,
            array(_U8, 3, written=True), _PARAMS, _PARAMS,
        )
        for bits in (_U16, _U32)
    )
)  # fmt: skip
def quantize(
    search, encode, first, last,
    source, columns, magnitude, up, sign_up, factor,
    importance, size, group, width,
    lowest, highest, moves, rounds, origin, drop,
    codes, scale, zero,
):  # fmt: skip
    """Quantize the panels numbered `first` to `last`; returns the largest magnitude, in bits.

    Args:
        search: Finds the grid of each block.
        encode: Finds the codes on it.
        first: The first panel.
        last: The one after the last.
        source: The weight's bits, [outer, rows, lanes], or [outer, lanes, rows] for `columns`.
        columns: Whether blocks are contiguous in memory.
        magnitude: Of the float type: see `onnxq.kernels.panels`, here and for the next three.
        up: How far the magnitude is shifted.
        sign_up: How far the sign is.
        factor: What the result is multiplied by.
        importance: What an error of each row counts, [rows].
        size: Elements per block.
        group: Blocks per panel.
        width: Lanes per panel.
        lowest: The lowest code, counted from `origin`.
        highest: The highest.
        moves: Whether there is a zero point.
        rounds: Whether it is an integer.
        origin: Added to each code.
        drop: How scales and float zero points are stored; see `round_to`.
        codes: As `source`; written.
        scale: As `source`, one per block; written.
        zero: Likewise, counted from `origin`.
    """
    length = source.shape[2] if columns else source.shape[1]
    lanes = source.shape[1] if columns else source.shape[2]
    along, across = panel_counts(length, lanes, size, group, width)
    smallest = _SMALLEST_HALF if drop == 13 else grids.TINY
    top = np.uint32(0)
    for panel in range(first, last):
        outer = panel // (along * across)
        inside = panel % (along * across)
        down = inside % along if columns else inside // across
        aside = inside // along if columns else inside % across
        row, lane = down * group * size, aside * width
        ragged = down == along - 1 and length % size > 0
        if ragged:
            row = length - length % size
        rows = min(length % size if ragged else size, length)
        count = 1 if ragged else min(group, (length - row) // size)
        n = min(width, lanes - lane)
        x = np.empty((count, rows, n), np.float32)
        q = np.empty((count, rows, n), np.uint8)
        s, z = np.empty((count, n), np.float32), np.empty((count, n), np.float32)
        flat = x.reshape(count * rows, n)
        if columns:
            found = panels.read_columns(
                source, outer, row, lane, magnitude, up, sign_up, factor, flat
            )
        else:
            found = panels.read_rows(source, outer, row, lane, magnitude, up, sign_up, factor, flat)
        top = max(top, found)
        weights = importance[row : row + count * rows].reshape(count, rows)
        search(x, weights, s, z, lowest, highest, moves, rounds)
        round_to(s, drop)
        for b in range(count):
            for l in range(n):
                if abs(s[b, l]) < smallest:
                    s[b, l] = smallest
        if not rounds:
            round_to(z, drop)
        encode(x, s, z, lowest, highest, rounds, origin, q)
        block = row // size
        if columns:
            panels.write_columns(q.reshape(count * rows, n), codes, outer, row, lane)
            for l in range(n):
                for b in range(count):
                    scale[outer, lane + l, block + b] = s[b, l]
                    zero[outer, lane + l, block + b] = z[b, l]
        else:
            panels.write_rows(q.reshape(count * rows, n), codes, outer, row, lane)
            for b in range(count):
                for l in range(n):
                    scale[outer, block + b, lane + l] = s[b, l]
                    zero[outer, block + b, lane + l] = z[b, l]
    return top
