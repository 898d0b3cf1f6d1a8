"""Reading feeds from .npz files, without pickles and without holding a whole data set.

An .npz is a zip of .npy files. `np.load` reads an array of it only as a whole, which for a data set
in one file is the data set; `read_samples` reads the members side by side, one sample at a time.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxq.errors import DataError
from onnxq.types import Array

_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def read_feed(path: Path) -> dict[str, Array]:
    """The arrays of the file: one feed.

    Raises:
        DataError: It cannot be read as arrays of numbers.
    """
    with _explained(path), zipfile.ZipFile(path) as archive:
        feed = {}
        for member in _members(archive):
            with archive.open(member) as stream:
                feed[member.removesuffix(".npy")] = np.lib.format.read_array(
                    stream, allow_pickle=False
                )
        return feed


def count_samples(path: Path) -> int:
    """The length of the leading axis, which all arrays of the file share.

    Raises:
        DataError: They do not share one, or the file cannot be read.
    """
    with _explained(path), zipfile.ZipFile(path) as archive, ExitStack() as stack:
        lengths = {c.name: c.shape[0] for c in _columns(archive, stack)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
        raise DataError(
            f"{path}: the leading axis counts the samples and must be the same for all arrays; "
            f"found {found}.",
            "Give a folder with one .npz per feed if the inputs have no sample axis.",
        )
    return next(iter(lengths.values()), 0)


def read_samples(path: Path) -> Iterator[dict[str, Array]]:
    """The samples of the file, one by one, each with a leading axis of 1.

    Raises:
        DataError: The file cannot be read as arrays of numbers.
    """
    length = count_samples(path)
    with _explained(path), zipfile.ZipFile(path) as archive, ExitStack() as stack:
        columns = _columns(archive, stack)
        for _ in range(length):
            yield {column.name: column.next_sample() for column in columns}


@dataclass(frozen=True)
class _Column:
    """An array of the file, being read along its leading axis."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: IO[bytes]

    def next_sample(self) -> Array:
        shape = (1, *self.shape[1:])
        size = self.dtype.itemsize * math.prod(shape)
        data = self.stream.read(size)
        if len(data) < size:
            raise EOFError(f"'{self.name}' ends too early")
        return np.frombuffer(bytearray(data), self.dtype).reshape(shape)


def _columns(archive: zipfile.ZipFile, stack: ExitStack) -> list[_Column]:
    columns = []
    for member in _members(archive):
        name = member.removesuffix(".npy")
        stream = stack.enter_context(archive.open(member))
        version = np.lib.format.read_magic(stream)
        if version not in {(1, 0), (2, 0)}:
            raise ValueError(f"'{name}' has a structured type")
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read_header(stream)
        if dtype.hasobject:
            raise ValueError(f"'{name}' holds Python objects, which are never unpickled")
        if fortran_order and len(shape) > 1:
            raise ValueError(
                f"'{name}' is stored in Fortran order; save np.ascontiguousarray(array)"
            )
        if not shape:
            raise ValueError(f"'{name}' is a scalar, without an axis that counts the samples")
        columns.append(_Column(name, shape, dtype, stream))
    return columns


def _members(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith(".npy")]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as failure:
        raise DataError(
            f"{path} cannot be read as an .npz of numeric arrays: "
            f"{type(failure).__name__}: {failure}.",
            "Write it with np.savez(path, input_name=array).",
        ) from failure
