"""Where calibration and comparison data comes from.

A feed is a dict of input names to numpy arrays: what one inference takes. A source gives feeds one
at a time, and every feed is checked against the model before it is used.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir

from onnxq.calib import npz
from onnxq.calib.functions import find_function
from onnxq.calib.inputs import InputSpec, check_feed, model_inputs
from onnxq.calib.random_feeds import random_feeds
from onnxq.errors import DataError
from onnxq.types import Array

HOW_TO_GIVE_DATA = """\
Give it in one of these ways:
  a folder with one .npz per feed, whose keys are the model's input names
  one .npz whose arrays count the samples along their first axis
  path/file.py:function or package.module:function, yielding dicts of input names to arrays
  random:8, for a dry run whose accuracy means nothing
From Python also a list of such dicts, or a function that yields them.
Some 32 to 128 samples like those of real use are enough."""

_KEPT, _KEPT_OUT = 8, 16  # of the feeds given, and of those held out
_HELD_OUT = 4  # one feed of so many
_HELD_OUT_FROM = 16  # feeds

_FUNCTION = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_logger = logging.getLogger("onnxq")

DataLike: TypeAlias = str | os.PathLike[str] | Iterable[Any] | Callable[[], Any]
Read: TypeAlias = Callable[[], Iterable[tuple[str, Any]]]


@dataclass(frozen=True)
class Sample:
    """One checked feed.

    Attributes:
        label: What errors call it: "feed 3", "feed 3 (data/0003.npz)".
        feed: One array per input of the model.
    """

    label: str
    feed: dict[str, Array]


class FeedSource:
    """Feeds for one model, to be read as often as needed (from a generator: once).

    Attributes:
        description: Where they come from, for the report.
        length: How many there are; None when that shows only at the end.
        is_random: Whether they are made up.
        is_read_once: Whether a second reading fails.
    """

    def __init__(
        self,
        inputs: Sequence[InputSpec],
        read: Read,
        description: str,
        length: int | None = None,
        *,
        is_random: bool = False,
        is_read_once: bool = False,
        may_be_empty: bool = False,
        holds_out: bool = False,
    ) -> None:
        self.description = description
        self.length = length
        self.is_random = is_random
        self.is_read_once = is_read_once
        self._may_be_empty = may_be_empty
        self._holds_out = holds_out
        self._given: list[Sample] = []
        self._held_out: list[Sample] = []
        self._begun: Iterator[Sample] | None = None
        self._inputs = inputs
        self._read = read

    def __iter__(self) -> Iterator[Sample]:
        """The feeds from the first on, each checked against the inputs of the model.

        Raises:
            DataError: A feed does not fit, the source fails, or there is no feed at all.
        """
        begun, self._begun = self._begun, None
        return self._samples() if begun is None else begun

    def first(self) -> Sample:
        """The first feed, which the next reading gives again.

        Raises:
            DataError: As in reading.
        """
        samples = iter(self)
        first = next(samples)
        self._begun = itertools.chain([first], samples)
        return first

    def _samples(self) -> Iterator[Sample]:
        given, held_out = _Reservoir(_KEPT), _Reservoir(_KEPT_OUT)
        for index, (name, feed) in enumerate(self._read()):
            label = f"feed {index} ({name})" if name else f"feed {index} of {self.description}"
            sample = Sample(label, check_feed(self._inputs, feed, label))
            if self._holds_out and _is_held_out(sample.feed):
                held_out.add(sample)
                continue
            given.add(sample)
            yield sample
        if given.seen + held_out.seen < _HELD_OUT_FROM or not given.seen:  # or all are alike
            for sample in held_out.samples:
                given.add(sample)
                yield sample
            held_out = _Reservoir(_KEPT_OUT)
        if not given.seen and not self._may_be_empty:
            raise DataError(f"There is no feed in {self.description}.", HOW_TO_GIVE_DATA)
        self._given, self._held_out = given.samples, held_out.samples

    def hold_out(self) -> FeedSource:
        """The feeds without some, about one of four: see `held_out`.

        Which ones depends on their contents alone, not on their order. Of less than 16 feeds none
        is held out.
        """
        return FeedSource(
            self._inputs,
            self._read,
            self.description,
            self.length,
            is_random=self.is_random,
            is_read_once=self.is_read_once,
            holds_out=True,
        )

    def shard(self, index: int, count: int) -> FeedSource:
        """Every `count`-th feed from the one numbered `index` on, counted from 1."""
        return FeedSource(
            self._inputs,
            lambda: itertools.islice(self._read(), index - 1, None, count),
            f"{self.description}, shard {index} of {count}",
            None if self.length is None else len(range(index - 1, self.length, count)),
            is_random=self.is_random,
            is_read_once=self.is_read_once,
        )

    def skip(self, count: int) -> FeedSource:
        """The feeds without the first `count`, which may be all of them."""
        return FeedSource(
            self._inputs,
            lambda: itertools.islice(self._read(), count, None),
            self.description,
            None if self.length is None else max(0, self.length - count),
            is_random=self.is_random,
            is_read_once=self.is_read_once,
            may_be_empty=count > 0,
        )

    def some(self) -> list[Sample]:
        """A few samples from all over the data: kept when it was read, or read now."""
        if not self._given:
            for _ in self:
                pass
        return self._given

    def held_out(self) -> list[Sample]:
        """A few of the samples that `hold_out` left out; empty if there are none."""
        self.some()
        return self._held_out


class _Reservoir:
    """Some of many samples, each as likely to be among them (Vitter 1985, algorithm R)."""

    def __init__(self, size: int) -> None:
        self.samples: list[Sample] = []
        self.seen = 0
        self._size = size
        self._draw = random.Random(0)

    def add(self, sample: Sample) -> None:
        place = self.seen if self.seen < self._size else self._draw.randint(0, self.seen)
        if place < self._size:
            self.samples[place : place + 1] = [sample]
        self.seen += 1


def _is_held_out(feed: Mapping[str, Array]) -> bool:
    content = 0
    for name in sorted(feed):
        content = zlib.crc32(feed[name].tobytes(), content)
    return content % _HELD_OUT == 0


def open_feeds(source: DataLike | FeedSource, model: ir.Model) -> FeedSource:
    """Find out what `source` is; the feeds themselves are read later.

    Args:
        source: One of these:
            a folder: each .npz in it is one feed, its keys are input names; sorted by file name;
            an .npz file: the first axis of every array counts the samples, and feed i is
            `array[i:i+1]`, so each feed keeps a batch axis of 1;
            "path/file.py:function" or "package.module:function": called without arguments at
            every reading, yields dicts;
            "random:N": N feeds made from the shapes and types of the model's inputs;
            a function or an iterable of dicts: a list is read as often as needed, a generator
            once;
            an open source, which is returned as it is.
        model: Whose inputs the feeds are for.

    Raises:
        DataError: It is none of these, or it cannot be read.
        ModelError: The model takes something else than tensors of numbers.
    """
    if isinstance(source, FeedSource):
        return source
    inputs = model_inputs(model)
    if isinstance(source, str | os.PathLike):
        return _from_text(os.fspath(source), inputs)
    if isinstance(source, dict):
        raise DataError("The data is one dict; expected several.", "Wrap it in a list: [feed].")
    if isinstance(source, Iterable):
        return _from_iterable(source, inputs)
    if callable(source):
        name = getattr(source, "__qualname__", type(source).__qualname__)
        return _from_function(source, f"the function {name}", inputs)
    raise DataError(f"The data is a {type(source).__name__}.", HOW_TO_GIVE_DATA)


def _from_text(source: str, inputs: Sequence[InputSpec]) -> FeedSource:
    if source.startswith("random:"):
        return _random(source, inputs)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, inputs)
    if path.is_file() and path.suffix == ".npz":
        length = npz.count_samples(path)
        return FeedSource(
            inputs, lambda: (("", feed) for feed in npz.read_samples(path)), source, length
        )
    if path.exists():
        raise DataError(f"{path} is neither a folder nor an .npz file.", HOW_TO_GIVE_DATA)
    if _FUNCTION.fullmatch(source):
        return _from_function(find_function(source), source, inputs)
    raise DataError(f"There is no data at {path}.", HOW_TO_GIVE_DATA)


def _from_folder(folder: Path, inputs: Sequence[InputSpec]) -> FeedSource:
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DataError(f"The folder {folder} holds no .npz file.", HOW_TO_GIVE_DATA)
    return FeedSource(
        inputs,
        lambda: ((str(path), npz.read_feed(path)) for path in paths),
        f"{folder} ({len(paths)} files)",
        len(paths),
    )


def _random(source: str, inputs: Sequence[InputSpec]) -> FeedSource:
    count = source.removeprefix("random:")
    if not count.isdecimal() or int(count) == 0:
        raise DataError(f"'{source}': expected a number of feeds.", "Write random:8, for example.")
    _logger.warning("The data is made up (%s): scales and accuracy will mean nothing.", source)
    return FeedSource(
        inputs,
        lambda: (("", feed) for feed in random_feeds(inputs, int(count))),
        source,
        int(count),
        is_random=True,
    )


def _from_function(
    function: Callable[[], Any], description: str, inputs: Sequence[InputSpec]
) -> FeedSource:
    def read() -> Iterator[tuple[str, Any]]:
        try:
            feeds = function()
        except Exception as failure:  # the user's function may raise anything
            raise _failed(description, failure) from failure
        if isinstance(feeds, dict) or not isinstance(feeds, Iterable):
            raise DataError(
                f"{description} returned a {type(feeds).__name__}; expected several feeds.",
                "Yield one dict of input names to arrays per feed.",
            )
        yield from _guarded(feeds, description)

    return FeedSource(inputs, read, description)


def _from_iterable(feeds: Iterable[Any], inputs: Sequence[InputSpec]) -> FeedSource:
    length = len(feeds) if isinstance(feeds, Sized) else None
    description = f"a {type(feeds).__name__}" + ("" if length is None else f" of {length} feeds")
    used = False

    def read() -> Iterator[tuple[str, Any]]:
        nonlocal used
        if used and isinstance(feeds, Iterator):
            raise DataError(
                f"The data is {description}, which can be read only once, and is needed again.",
                "Give a list, or the function that makes the generator.",
            )
        used = True
        yield from _guarded(feeds, description)

    is_read_once = isinstance(feeds, Iterator)
    return FeedSource(inputs, read, description, length, is_read_once=is_read_once)


def _guarded(feeds: Iterable[Any], description: str) -> Iterator[tuple[str, Any]]:
    iterator = iter(feeds)
    for index in itertools.count():
        try:
            feed = next(iterator)
        except StopIteration:
            return
        except Exception as failure:  # the user's code may raise anything
            raise _failed(f"Feed {index} of {description}", failure) from failure
        yield "", feed


def _failed(what: str, failure: Exception) -> DataError:
    return DataError(
        f"{what} failed: {type(failure).__name__}: {failure}.", "Correct the function."
    )
