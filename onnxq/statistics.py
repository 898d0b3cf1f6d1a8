"""Statistics of the activations of a model: summed up, imported, or found again for `quantize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq import observers
from onnxq.bytesize import in_bytes
from onnxq.calib import runner, tensorrt_cache
from onnxq.calib.feeds import open_feeds
from onnxq.calib.fingerprint import fingerprint
from onnxq.calib.store import CalibStore
from onnxq.calib.tensorrt_cache import Imported
from onnxq.errors import DataError
from onnxq.garbage import rarely_collected
from onnxq.passes.plan import observable
from onnxq.preparation import observed

if TYPE_CHECKING:
    from onnxq.calib.feeds import DataLike
    from onnxq.io import ModelLike


@rarely_collected()
def calibrate(
    model: ModelLike,
    calibration: DataLike,
    *,
    observer: str = "auto",
    provider: str = "cpu",
    shard: tuple[int, int] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    memory_limit: int | str | None = None,
) -> CalibStore:
    """Run `model` over data and sum up the values of every activation that can be quantized.

    Args:
        model: As for `quantize`.
        calibration: A folder of .npz files, one .npz file, "file.py:function",
            "package.module:function", "random:N", or an iterable or function of feeds (dicts of
            arrays by input name).
        observer: A name in `onnxq.observers`.
        provider: Where ONNX Runtime runs: "cpu" or "cuda".
        shard: (index, count): only every `count`-th feed, from the one numbered `index` on, counted
            from 1. The statistics of all shards merge into those of the whole: `CalibStore.merge`.
        checkpoint: A file that keeps what was seen now and then, to go on from if it exists.
        memory_limit: How much memory the activations of one feed may take at once, in bytes or as
            text such as "2GB"; None for any. What is more is observed in several runs over the
            data, which gives the same statistics. Goes by the sizes of the first feed, and without
            a checkpoint.

    Returns:
        The statistics, to be saved, and given to `quantize` for any target.

    Raises:
        ModelError, DataError: Bad input of that kind.
    """
    own = observed(model)
    feeds = open_feeds(calibration, own)
    if shard is not None:
        feeds = feeds.shard(*_check_shard(*shard))
    path = None if checkpoint is None else Path(checkpoint)
    return runner.calibrate(
        own,
        feeds,
        observable(own),
        observers.get(observer),
        provider,
        begun=CalibStore.load(path) if path is not None and path.exists() else None,
        checkpoint=None if path is None else lambda store: store.save(path),
        memory_limit=in_bytes(memory_limit),
    )


def import_tensorrt_cache(model: ModelLike, cache: str | os.PathLike[str]) -> Imported:
    """The INT8 calibration cache of TensorRT up to 10 as statistics of `model`.

    Args:
        model: What TensorRT was calibrated with; as for `quantize`.
        cache: The text file that the calibrator wrote.

    Raises:
        ModelError, DataError: Bad input of that kind.
    """
    own = observed(model)
    return tensorrt_cache.read(Path(cache), observable(own), fingerprint(own))


def statistics_of(model: ModelLike, stats: str | os.PathLike[str] | CalibStore) -> CalibStore:
    """The statistics `stats`, which must be of `model`.

    Raises:
        DataError: They are not.
    """
    store = stats if isinstance(stats, CalibStore) else CalibStore.load(stats)
    store.require(fingerprint(observed(model)))
    return store


def _check_shard(index: int, count: int) -> tuple[int, int]:
    if not 1 <= index <= count:
        raise DataError(f"There is no shard {index} of {count}.", "Count from 1: 1/8 to 8/8.")
    return index, count
