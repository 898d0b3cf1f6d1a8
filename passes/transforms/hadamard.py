"""Orthogonal matrices that spread each channel over many alike: Hadamard's, of norm 1.

    Q = L (x) R,    x Q = L^T X R    for a row x seen as a matrix X

costs little for each x, and L and R are stored in a few kB. R is Sylvester's, of a power of two; L
one of Paley's for what is left of the size, times another of Sylvester's. Paley's matrices, for
primes q, are of the orders q + 1 (q = 3 mod 4) and 2 (q + 1) (q = 1 mod 4), of which those of
language models are made: 384 = 12 * 32, 576 = 36 * 16, 896 = 28 * 32. Where there is none, channels
are spread over a power of two of neighbours each.
(Paley, "On Orthogonal Matrices", 1933; rotations of language models: QuaRot, Ashkboos et al. 2024,
arXiv:2404.00456.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxq.types import Array

_LEAST_NEIGHBOURS = 16
_PANEL = 1 << 20  # elements that are turned at once


@dataclass(frozen=True)
class Rotation:
    """Q = L (x) R.

    Attributes:
        left: L, float64 [a, a].
        right: R, float64 [b, b].
    """

    left: Array
    right: Array

    @property
    def size(self) -> int:
        """Of Q: a b."""
        return len(self.left) * len(self.right)

    @property
    def inverse(self) -> Rotation:
        """What turns back."""
        return Rotation(self.left.T, self.right.T)

    def turned(self, array: Array, axis: int) -> Array:
        """Each vector x along an axis of a vector or matrix as x Q; float32, or float64 as given.

        Panels of the others are turned one after another, so that no more than the result is held.
        """
        dtype = np.float64 if array.dtype == np.float64 else np.float32
        if array.ndim == 1:
            return np.asarray(self.turned(array[None], 1)[0])
        found: Array = np.empty(array.shape, dtype)
        vectors, turned = np.moveaxis(array, axis, 1), np.moveaxis(found, axis, 1)
        step = max(1, _PANEL // self.size)
        for start in range(0, len(vectors), step):
            panel = slice(start, start + step)
            turned[panel] = self._rows(np.ascontiguousarray(vectors[panel], dtype))
        return found

    def _rows(self, rows: Array) -> Array:
        left, right = self.left.astype(rows.dtype), self.right.astype(rows.dtype)
        seen = rows.reshape(-1, len(left), len(right))
        return np.asarray(left.T @ (seen @ right)).reshape(rows.shape)


def rotation(size: int) -> Rotation | None:
    """A rotation that spreads each of `size` channels over all, or 16 or more; None if none."""
    power = size & -size
    core = _core(size // power, power)
    if core is None:
        if power < _LEAST_NEIGHBOURS:
            return None
        core, rest = np.eye(size // power), power
    else:
        rest = size // len(core)
    within = 1
    while rest > 1 and len(core) * within < rest:
        within, rest = within * 2, rest // 2
    return Rotation(np.kron(core, _sylvester(within)), _sylvester(rest))


def _core(odd: int, power: int) -> Array | None:
    """A matrix of the least order `odd` times a power of two up to `power`."""
    order = odd
    while order <= odd * power:
        if order == 1:
            return np.ones((1, 1))
        if order % 4 == 0 and (found := _paley(order)) is not None:
            return found
        order *= 2
    return None


def _sylvester(order: int) -> Array:
    matrix: Array = np.ones((1, 1))
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(order))


def _paley(order: int) -> Array | None:
    q = order - 1
    if q % 4 == 3 and _is_prime(q):
        # Of the conference matrix [[0, 1], [-1, residues]], and the identity.
        matrix: Array = np.eye(order)
        matrix[0, 1:], matrix[1:, 0] = 1, -1
        matrix[1:, 1:] += _residues(q)
        return np.asarray(matrix / np.sqrt(order))
    q = order // 2 - 1
    if q % 4 == 1 and _is_prime(q):
        conference: Array = np.ones((q + 1, q + 1))
        conference[0, 0], conference[1:, 1:] = 0, _residues(q)
        matrix = np.kron(conference, [[1, 1], [1, -1]]) + np.kron(
            np.eye(q + 1), [[1, -1], [-1, -1]]
        )
        return np.asarray(matrix / np.sqrt(order))
    return None


def _residues(q: int) -> Array:
    """Of row less column modulo q: 1 for a square, -1 for none, 0 for 0."""
    square = np.full(q, -1.0)
    square[[i * i % q for i in range(q)]] = 1
    square[0] = 0
    places = np.arange(q)
    return np.asarray(square[(places[:, None] - places) % q])


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % each for each in range(2, int(number**0.5) + 1))
