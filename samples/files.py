"""Files of this Python installation with known types, as magika sees them."""

from __future__ import annotations

import random
import sysconfig
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from text_lines import EVALUATION

Feed: TypeAlias = dict[str, NDArray[Any]]

# Magika's name for the content of files with this suffix.
LABELS = {
    **{".py": "python", ".pyc": "pythonbytecode", ".so": "elf", ".json": "json", ".html": "html"},
    **{".c": "c", ".h": "c", ".cpp": "cpp", ".css": "css", ".js": "javascript", ".svg": "svg"},
    **{".png": "png", ".ttf": "ttf", ".gz": "gzip", ".xml": "xml", ".csv": "csv", ".jpg": "jpeg"},
    **{".ps": "postscript", ".pdf": "pdf", ".zip": "zip", ".wav": "wav", ".gif": "gif"},
    **{".toml": "toml", ".sh": "shell", ".bat": "batch", ".rst": "rst", ".md": "markdown"},
}
_PART, _BLOCK, _PADDING = 1024, 4096, 256  # of bytes at each end; read for them; no byte


def labelled_files(count: int, seed: int) -> Iterator[tuple[str, Feed]]:
    """Labels and inputs of magika; none of EVALUATION is one of any other seed.

    Their contents decide, as there are copies among the files. Every type has about the same
    share, as far as there are files of it.
    """
    draw = random.Random(seed)
    groups = [draw.sample(files, len(files)) for files in _files()]
    given = 0
    while given < count and any(groups):
        for group in groups:
            if group and given < count:
                path = group.pop()
                content = features(path)
                if zlib.crc32(content.tobytes()) % 2 == (seed == EVALUATION):
                    given += 1
                    yield LABELS[path.suffix], {"bytes": content}


def features(path: Path) -> NDArray[np.int32]:
    """The first and last 1024 bytes without white space at the ends, padded: int32 [1, 2048]."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(_BLOCK).lstrip()
        file.seek(max(0, size - _BLOCK))
        end = file.read(_BLOCK).rstrip()
    if size <= _BLOCK:
        start = end = start.rstrip()
    found = np.full((1, 2 * _PART), _PADDING, np.int32)
    head, tail = start[:_PART], end[-_PART:]
    found[0, : len(head)] = list(head)
    found[0, 2 * _PART - len(tail) :] = list(tail)
    return found


@cache
def _files() -> list[list[Path]]:
    folders = [Path(sysconfig.get_path(which)) for which in ("stdlib", "purelib", "platlib")]
    paths = {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in LABELS and path.is_file() and 64 < path.stat().st_size < 1 << 24
    }
    return [sorted(p for p in paths if p.suffix == suffix) for suffix in LABELS]
