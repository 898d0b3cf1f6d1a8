"""The best grid for given codes is a regression of elements x on codes c.

With sums weighted by w,

x ~ s c + m       s = (S1 Sxc - Sx Sc) / D,   m = (Scc Sx - Sc Sxc) / D,   D = S1 Scc - Sc^2
x ~ s (c - z)     s = Sx(c-z) / S(c-z)(c-z)   for a given zero point z, such as round(-m / s)
"""

from __future__ import annotations

import numpy as np

from onnxq.kernels._compile import kernel


@kernel()
def solve(sums, zero, lowest, highest, moves, rounds):
    """Scale, zero point, and how much of the sum of w x^2 they explain."""
    w, wx, wc, wcc, wcx = sums[0], sums[1], sums[2], sums[3], sums[4]
    nothing = np.float32(0)
    z = zero
    if moves:
        d = w * wcc - wc * wc
        s = (w * wcx - wx * wc) / d if d > 0 else nothing
        m = (wcc * wx - wc * wcx) / d if d > 0 else nothing
        if not rounds:
            return s, (-m / s if s > 0 else zero), s * wcx + m * wx
        z = np.rint(-m / s) if s > 0 else zero
        z = z if z > lowest else lowest
        z = z if z < highest else highest
    across = wcx - z * wx
    square = wcc - np.float32(2) * z * wc + z * z * w
    s = across / square if square > 0 else nothing
    return s, z, s * across
