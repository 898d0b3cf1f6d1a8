"""Codes of less than a byte, packed as rows of bytes, low bits first, whichever way they lie."""

from __future__ import annotations

import sys

import numpy as np
from numba import types

from onnxq.kernels._compile import BOOL, I64, array, kernel

_U8 = types.uint8
_LANES, _BYTES = 256, 64  # of a tile, whose rows of bytes are whole cache lines
_WORDS = _BYTES // 4
_LITTLE = sys.byteorder == "little"


@kernel()
def _pack_line(line, bits, add, target):
    """Pack a line of codes into as many bytes as it fills; the rest of it is not read."""
    if bits == 4:
        for j in range(line.size // 2):
            low, high = np.uint8(line[2 * j] + add), np.uint8(line[2 * j + 1] + add)
            target[j] = low | np.uint8(high << np.uint8(4))
    elif bits == 2:
        for j in range(line.size // 4):
            low, high = np.uint8(line[4 * j] + add), np.uint8(line[4 * j + 1] + add)
            low |= np.uint8(high << np.uint8(2))
            high = np.uint8(line[4 * j + 2] + add)
            low |= np.uint8(high << np.uint8(4))
            high = np.uint8(line[4 * j + 3] + add)
            target[j] = low | np.uint8(high << np.uint8(6))
    else:
        for j in range(line.size):
            target[j] = np.uint8(line[j] + add)


@kernel()
def _pack_tile(codes, lane, start, bits, add, tile):
    """Pack codes [rows, lane:] from byte `start` on, as tile [bytes, lanes]; missing rows are 0."""
    per = 8 // bits
    tile[:] = 0
    for j in range(tile.shape[0]):
        line = tile[j]
        for part in range(per):
            r = (start + j) * per + part
            if r < codes.shape[0]:
                shift = np.uint8(part * bits)
                source = codes[r, lane : lane + line.size]
                for l in range(line.size):
                    line[l] |= np.uint8(np.uint8(source[l] + add) << shift)


@kernel()
def _pack_words(codes, lane, start, count, bits, add, packed, tile):
    """Pack codes [rows, lane:] as `count` words of 4 bytes each, from word `start` on."""
    per = 32 // bits
    lanes = tile.shape[1]
    tile[:] = 0
    for j in range(count):
        line = tile[j]
        for part in range(per):
            shift = np.uint32(part * bits)
            source = codes[(start + j) * per + part, lane : lane + lanes]
            for l in range(lanes):
                line[l] |= np.uint32(np.uint8(source[l] + add)) << shift
    for l in range(lanes):
        target = packed[lane + l, start : start + count]
        for j in range(count):
            target[j] = tile[j, l]


@kernel(types.void(array(_U8, 2), BOOL, I64, _U8, _U8, array(_U8, 2, written=True), I64, I64))
def pack(codes, columns, bits, add, padding, packed, first, last):
    """Pack the lanes from `first` to `last` of a matrix of codes.

    Args:
        codes: [rows, lanes], or [lanes, rows] for `columns`.
        columns: Which of them.
        bits: Of a code: 2, 4 or 8.
        add: Added to every code, modulo 256.
        padding: The code behind the last row, up to the end of the byte row.
        packed: [lanes, bytes]; written.
        first: The first lane.
        last: The one after the last.
    """
    per = 8 // bits
    rows = codes.shape[1] if columns else codes.shape[0]
    if columns:
        for lane in range(first, last):
            packed[lane, rows // per :] = 0
            _pack_line(codes[lane], bits, add, packed[lane])
            for r in range(rows - rows % per, rows):
                packed[lane, r // per] |= np.uint8(
                    np.uint8(codes[lane, r] + add) << np.uint8(r % per * bits)
                )
    elif rows == packed.shape[1] * per and packed.shape[1] % 4 == 0 and _LITTLE:
        words = packed.view(np.uint32)
        for lane in range(first, last, _LANES):
            whole = np.empty((_WORDS, min(_LANES, last - lane)), np.uint32)
            for start in range(0, words.shape[1], _WORDS):
                count = min(_WORDS, words.shape[1] - start)
                _pack_words(codes, lane, start, count, bits, add, words, whole)
    else:
        for lane in range(first, last, _LANES):
            lanes = min(_LANES, last - lane)
            for start in range(0, packed.shape[1], _BYTES):
                count = min(_BYTES, packed.shape[1] - start)
                tile = np.empty((count, lanes), np.uint8)
                _pack_tile(codes, lane, start, bits, add, tile)
                for l in range(lanes):
                    target = packed[lane + l, start : start + count]
                    for j in range(count):
                        target[j] = tile[j, l]
    for lane in range(first, last):
        for r in range(rows, packed.shape[1] * per):
            packed[lane, r // per] |= np.uint8(padding << np.uint8(r % per * bits))


@kernel(types.void(array(_U8, 2), BOOL, I64, _U8, array(_U8, 2, written=True), I64, I64))
def unpack(packed, columns, bits, add, codes, first, last):
    """The inverse of `pack`, for the lanes from `first` to `last`; what pads a row is left.

    Args:
        packed: [lanes, bytes].
        columns: Whether codes are [lanes, rows].
        bits: Of a code: 2, 4 or 8.
        add: Added to every code, modulo 256.
        codes: [rows, lanes], or [lanes, rows] for `columns`; written.
        first: The first lane.
        last: The one after the last.
    """
    per = 8 // bits
    mask = np.uint8((1 << bits) - 1)
    if columns:
        for lane in range(first, last):
            source, target = packed[lane], codes[lane]
            for r in range(target.size):
                shift = np.uint8(r % per * bits)
                target[r] = np.uint8(((source[r // per] >> shift) & mask) + add)
        return
    for lane in range(first, last, _LANES):
        lanes = min(_LANES, last - lane)
        for start in range(0, codes.shape[0], _BYTES):
            rows = min(_BYTES, codes.shape[0] - start)
            tile = np.empty((rows, lanes), np.uint8)
            for l in range(lanes):
                source = packed[lane + l]
                for r in range(rows):
                    shift = np.uint8((start + r) % per * bits)
                    tile[r, l] = np.uint8(((source[(start + r) // per] >> shift) & mask) + add)
            for r in range(rows):
                codes[start + r, lane : lane + lanes] = tile[r]
