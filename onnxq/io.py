"""Loading and saving models: the policy.

A model is read without its weights, which stay memory-mapped. It is written weight by weight, into
a temporary folder beside the output, and gets its final name when it is whole and verified. An
input is never also an output, and never modified.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq.bytesize import in_bytes
from onnxq.errors import OutputError
from onnxq.loading import data_files, load, source_files
from onnxq.onnxfile import Layout, holds_weights_of, stored_bytes, write_model, write_outline

if TYPE_CHECKING:
    from onnxq.loading import ModelLike

__all__ = ["ModelLike", "data_files", "ensure_writable", "load", "save", "staging"]

# A protobuf message ends at 2 GiB, and readers hold it twice while they parse it.
SINGLE_FILE_LIMIT = 1_500_000_000
_LARGE = 200_000_000


def save(
    model: ModelLike,
    path: str | os.PathLike[str],
    *,
    external_data: bool = False,
    shard_size: int | str | None = None,
    memory_limit: int | str | None = None,
    check: Callable[[Path], None] | None = None,
    on_weight: Callable[[], None] | None = None,
) -> None:
    """Write `model` to `path`; weights not computed yet are computed here, one at a time.

    Models of more than 1.5 GB get their weights in one file beside it, named after it
    (`model.onnx.data`).

    Args:
        model: What to write, in any form that `load` takes. It is not modified.
        path: The ONNX file. Its folder must exist.
        external_data: Put the weights in a file beside the model whatever their size.
        shard_size: Put them in several such files (`model.onnx.data-00001-of-00003`) of at most so
            many bytes each, given as a number or as text such as "2GB"; a weight that is larger
            gets a file of its own.
        memory_limit: How much of the weights may be computed ahead while others are written, in
            bytes or as text; None, or less than a weight, for one weight.
        check: Called with the path of the finished file before it gets its final name. If it
            raises, nothing is left behind.
        on_weight: Called after each weight written.

    Raises:
        OutputError: The output cannot be written, would overwrite the input, or the disk is full.
        ModelError: See `load`.
        RecipeError: The size of a shard, or the limit, is no number of bytes.
    """
    path, shard_bytes = Path(path), in_bytes(shard_size, "size of a shard")
    waiting_bytes = in_bytes(memory_limit) or 0
    model = model if isinstance(model, ir.Model) else load(model)
    ensure_writable(path, model)
    size = stored_bytes(model)
    free = shutil.disk_usage(path.resolve().parent).free
    if size > free:
        raise OutputError(
            f"'{path}' needs {size / 1e6:.0f} MB, and its disk has {free / 1e6:.0f} MB free.",
            "Free some space, or write to another disk.",
        )
    beside = external_data or shard_bytes is not None or size > SINGLE_FILE_LIMIT
    layout: Layout = "beside" if beside else "inside"
    with staging(path) as folder:
        write_model(
            model,
            folder / path.name,
            layout,
            on_weight,
            shard_bytes=shard_bytes,
            waiting_bytes=waiting_bytes,
        )
        if check is not None:
            _check(check, model, folder / path.name, layout, size)
        # The data goes first: a model that names missing data is worse than data without a model.
        for written in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            os.replace(written, path.parent / written.name)


def ensure_writable(path: str | os.PathLike[str], model: ir.Model | None = None) -> None:
    """Check that `path` can be written, and that `model` was not read from it.

    Raises:
        OutputError: It cannot, or it was.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder.", "Name a file.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder '{path.parent}'.", "Create it first.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as failure:
        raise OutputError(
            f"The folder '{path.parent}' is not writable: {failure.strerror}.",
            "Write to another folder.",
        ) from failure
    if model is None:
        return
    whole = path.resolve()
    for used in source_files(model):
        if used == whole or holds_weights_of(used, whole):
            raise OutputError(
                f"Writing '{path}' would overwrite the input file '{used}'.", "Choose another name."
            )


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, for what is not whole yet; gone when the block ends."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as failure:
        raise OutputError(f"'{path}' cannot be written: {failure.strerror}.") from failure
    try:
        yield folder
    except OSError as failure:
        why = "the disk is full" if failure.errno == errno.ENOSPC else failure.strerror
        raise OutputError(f"'{path}' cannot be written: {why}.") from failure
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(
    check: Callable[[Path], None], model: ir.Model, path: Path, layout: Layout, size: int
) -> None:
    """Check the file at `path`; a large one by its outline, which takes little memory to load."""
    if layout == "beside" or size < _LARGE:
        check(path)
        return
    outline = path.with_name(f"outline-of-{path.name}")
    write_outline(model, path, outline)
    check(outline)
    outline.unlink()
