"""The INT8 calibration cache of TensorRT up to 10, whose calibrators TensorRT 11 removed.

A line of text per tensor: its name, and its scale as the hexadecimal bits of a float32, most
significant byte first. The first line says which calibrator wrote it.

    TRT-8601-EntropyCalibration2
    images: 3c010a14

The scale is the largest absolute value divided by 127.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxq.calib.store import CalibStore
from onnxq.errors import DataError

_HEADER = re.compile(r"TRT-\d+-\w+")
_LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})")


@dataclass(frozen=True)
class Imported:
    """A cache as statistics.

    Attributes:
        store: Ranges of the tensors that both the cache and the model have.
        unknown: Names of the cache that the model does not have.
        missing: Tensors that int8 can quantize and the cache says nothing about.
    """

    store: CalibStore
    unknown: list[str]
    missing: list[str]


def read(path: Path, tensors: Collection[str], fingerprint: str) -> Imported:
    """Read a cache for the model that has `tensors` and `fingerprint`.

    Raises:
        DataError: The file is missing, something else, or matches no tensor at all.
    """
    scales = _scales(path)
    known = {name: scale for name, scale in scales.items() if name in tensors}
    if not known:
        raise DataError(
            f"None of the {len(scales)} tensors in '{path}' is an activation of the model, for "
            f"example '{next(iter(scales))}'.",
            "Give the ONNX file that TensorRT was calibrated with.",
        )
    states = {
        name: {"min": np.array([-127 * scale]), "max": np.array([127 * scale])}
        for name, scale in known.items()
    }
    store = CalibStore(states, fingerprint, f"TensorRT cache {path}", 0, "minmax", {})
    unknown = [name for name in scales if name not in known]
    return Imported(store, unknown, [name for name in tensors if name not in known])


def _scales(path: Path) -> dict[str, float]:
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as failure:
        raise DataError(f"The TensorRT cache '{path}' cannot be read: {failure}.") from failure
    if not _HEADER.fullmatch(header.strip()):
        raise DataError(
            f"'{path}' is no TensorRT calibration cache: its first line is '{header[:40]}'.",
            "It begins like TRT-8601-EntropyCalibration2.",
        )
    scales = {}
    for number, line in enumerate(lines, 2):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(
                f"Line {number} of '{path}' is '{line[:60]}'; expected a name, a colon and 8 "
                "hexadecimal digits.",
                "Copy the file again.",
            )
        (scale,) = struct.unpack(">f", bytes.fromhex(match[2]))
        if not 0 < scale < float("inf"):
            raise DataError(f"Line {number} of '{path}' has the scale {scale}.", "Calibrate again.")
        scales[match[1]] = float(scale)
    if not scales:
        raise DataError(f"'{path}' holds no tensor.", "Copy the file again.")
    return scales
