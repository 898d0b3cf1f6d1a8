"""The best grid for given codes is a regression of elements x on codes c.

With sums weighted by w,

x ~ s c + m       s = (S1 Sxc - Sx Sc) / D,   m = (Scc Sx - Sc Sxc) / D,   D = S1 Scc - Sc^2
x ~ s (c - z)     s = Sx(c-z) / S(c-z)(c-z)   for a given zero point z, such as round(-m / s)
"""

from __future__ import annotations

import numpy as np

from onnxq.kernels._compile import kernel


@kernel()
def solve(w, wx, wc, wcc, wcx, zero, lowest, highest, moves, rounds):
    """Scale, zero point, and how much of the sum of w x^2 they explain; without branches."""
    nothing, one = np.float32(0), np.float32(1)
    z = zero
    if moves:
        d = w * wcc - wc * wc
        known = d > nothing
        d = d if known else one
        s = (w * wcx - wx * wc) / d
        m = (wcc * wx - wc * wcx) / d
        usable = known and s > nothing
        z = -m / (s if usable else one)
        if not rounds:
            return (s if usable else nothing), (z if usable else zero), s * wcx + m * wx
        z = np.rint(z if usable else zero)
        z = z if z > lowest else lowest
        z = z if z < highest else highest
    across = wcx - z * wx
    square = wcc - np.float32(2) * z * wc + z * z * w
    known = square > nothing
    s = across / (square if known else one)
    s = s if known else nothing
    return s, z, s * across
