"""Calibration: run the feeds through the model and show the observer each tapped tensor.

A tap is observed and dropped before the next feed is read: memory follows the largest feed, not
the number of feeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxq.calib.feeds import FeedSource, Sample
from onnxq.calib.fingerprint import fingerprint
from onnxq.calib.groups import split
from onnxq.calib.store import CalibStore
from onnxq.calib.taps import Taps, sizes
from onnxq.errors import DataError, RecipeError
from onnxq.kernels import threads
from onnxq.observers import Observer, State
from onnxq.progress import progress
from onnxq.types import Array

_CHECKPOINT_SECONDS = 10.0


def calibrate(
    model: ir.Model,
    feeds: FeedSource,
    tensors: Mapping[str, int],
    observer: Observer,
    provider: str = "cpu",
    *,
    begun: CalibStore | None = None,
    checkpoint: Callable[[CalibStore], None] | None = None,
    memory_limit: int | None = None,
) -> CalibStore:
    """Observe `tensors` while the feeds run through the model, which is not modified.

    Args:
        model: The float model.
        feeds: The data, from `open_feeds`.
        tensors: The channel axis of each tensor to observe, by its name: see `Taps`.
        observer: What to remember of them.
        provider: The execution provider of ONNX Runtime.
        begun: What an earlier run over the same feeds had seen when it ended; they are skipped.
        checkpoint: Called now and then with what was seen so far.
        memory_limit: How many bytes the tensors of one feed may take at once, going by the first
            feed. What is more is observed in groups, each in a run of its own over the feeds.

    Raises:
        DataError: The data does not fit the model, an activation is NaN or infinite, or the groups
            need data that can be read once only.
        ModelError: A tensor does not exist or is not of floats, or the model does not load.
        RecipeError: A memory limit together with what is for one run.
    """
    groups: list[Mapping[str, int]] = [tensors]
    if memory_limit is not None:
        if begun is not None or checkpoint is not None:
            raise RecipeError(
                "A run under a memory limit cannot be resumed: it may be several.",
                "Leave out the memory limit, or the checkpoint; shards can be merged.",
            )
        groups = _groups(model, feeds, tensors, provider, memory_limit)
    identity = fingerprint(model)
    seen = 0 if begun is None else begun.samples
    states: dict[str, State] = {name: observer.init() for name in tensors}
    if begun is not None:
        _require_same(begun, identity, feeds, observer)
        states |= begun.states
    store = CalibStore(
        states=states,
        fingerprint=identity,
        feeds=feeds.description,
        samples=seen,
        observer=observer.name,
        settings=observer.settings,
        is_random=feeds.is_random,
    )
    remaining = feeds.skip(seen) if seen else feeds
    steps = None if remaining.length is None else remaining.length * len(groups)
    with progress("Calibrating", steps) as advance:
        for group in groups:
            taps, after, saved = Taps(model, list(group), provider), seen, time.monotonic()
            for _ in _observe(taps, remaining, group, observer, states):
                after += 1
                advance()
                if checkpoint is not None and time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    checkpoint(replace(store, states=dict(states), samples=after))
                    saved = time.monotonic()
            del taps  # before the next ones are made
    return replace(store, samples=after)


def _observe(
    taps: Taps,
    samples: Iterable[Sample],
    tensors: Mapping[str, int],
    observer: Observer,
    states: dict[str, State],
) -> Iterator[None]:
    """Update `states` by each of the samples, one a step."""
    names, workers = list(tensors), threads.count()

    def observe(first: int, found: list[list[Array]], label: str) -> None:
        for name, arrays in zip(names[first::workers], found[first::workers], strict=True):
            for array in arrays:
                states[name] = _updated(observer, states[name], array, tensors[name], name)
            _require_finite(states[name], name, label)

    with ThreadPoolExecutor(workers) as pool:
        for sample in samples:
            found = taps.run(sample)
            for work in [pool.submit(observe, i, found, sample.label) for i in range(workers)]:
                work.result()
            del found
            yield


def _groups(
    model: ir.Model, feeds: FeedSource, tensors: Mapping[str, int], provider: str, limit: int
) -> list[Mapping[str, int]]:
    groups = split(tensors, sizes(model, list(tensors), feeds.first(), provider), limit)
    if len(groups) > 1 and feeds.is_read_once:
        raise DataError(
            f"Under the memory limit the data is read {len(groups)} times; {feeds.description} "
            "can be read only once.",
            "Give a list, or the function that makes the generator; or raise the limit.",
        )
    return groups


def _require_same(begun: CalibStore, identity: str, feeds: FeedSource, observer: Observer) -> None:
    begun.require(identity)
    before, now = (begun.feeds, begun.observer), (feeds.description, observer.name)
    if before != now:
        raise DataError(
            f"The calibration to resume was of {before[0]} with the observer {before[1]}; this one "
            f"is of {now[0]} with {now[1]}.",
            "Resume with the same data and observer, or begin anew without --resume.",
        )


def _updated(observer: Observer, state: State, array: Array, axis: int, name: str) -> State:
    # A tensor without that axis has no channels: one for all of it.
    has_axis = -array.ndim <= axis < array.ndim
    channels = np.moveaxis(array, axis, 0) if has_axis else array.reshape(1, -1)
    try:
        return observer.update(state, channels)
    except DataError as failure:
        raise DataError(f"Tensor '{name}': {failure.what}", failure.fix) from failure


def _require_finite(state: State, name: str, label: str) -> None:
    if not all(np.isfinite(array).all() for array in state.values()):
        raise DataError(
            f"Tensor '{name}' holds NaN or infinity for {label}.",
            "Check the data; if the float model itself overflows there, leave the op in float.",
        )
