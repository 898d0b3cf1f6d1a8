"""What the CPU at hand multiplies in 8 bits.

Before VNNI, x86 adds two products of an unsigned and a signed byte in 16 bits, and saturates:
2 * 255 * 127 does not fit, 2 * 255 * 63 does. Kernels of unsigned activations thus need weights of
7 bits there. VNNI, and the dot products of Arm, add in 32 bits.
(ONNX Runtime, "Quantize ONNX models": reduce_range.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxq.targets import Target

_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
_CPUINFO = Path("/proc/cpuinfo")


def is_meant(target: Target, preset: str) -> bool:
    """Whether the CPU at hand computes what the hardware does that a preset of `target` is for.

    Products of signed bytes saturate without VNNI as well: the activation is made unsigned there.
    """
    return preset != "int8" or target.cpu_has_vnni is False or has_vnni()


def has_vnni(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU at hand adds products of 8-bit numbers in 32 bits.

    Args:
        cpuinfo: What Linux tells about its CPUs. Without such a file, as on other systems, the
            answer is no, with which results are right on every CPU.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    fields = (line.partition(":") for line in lines)
    of_each = [set(v.split()) for key, _, v in fields if key.strip() in ("flags", "Features")]
    return bool(of_each) and all(flags & _FLAGS for flags in of_each)
