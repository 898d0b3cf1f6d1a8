"""Calibration: run the feeds through the model and show the observer each tapped tensor.

The tapped tensors become the outputs of a clone of the model, so one inference gives all of them.
A tap is observed and dropped before the next feed is read: memory follows the largest feed, not
the number of feeds.
"""

from __future__ import annotations

import difflib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import FeedSource
from onnxq.calib.fingerprint import fingerprint
from onnxq.calib.store import CalibStore
from onnxq.errors import DataError, ModelError
from onnxq.kernels import threads
from onnxq.observers import Observer, State
from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer, in_branches
from onnxq.progress import progress
from onnxq.types import Array

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]

_CHECKPOINT_SECONDS = 10.0
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


def calibrate(
    model: ir.Model,
    feeds: FeedSource,
    tensors: Mapping[str, int],
    observer: Observer,
    provider: str = "cpu",
    *,
    begun: CalibStore | None = None,
    checkpoint: Callable[[CalibStore], None] | None = None,
) -> CalibStore:
    """Observe `tensors` while the feeds run through the model, which is not modified.

    Args:
        model: The float model.
        feeds: The data, from `open_feeds`.
        tensors: The channel axis of each tensor to observe, by its name: graph inputs, outputs or
            anything between, also in the branches of an If.
        observer: What to remember of them.
        provider: The execution provider of ONNX Runtime.
        begun: What an earlier run over the same feeds had seen when it ended; they are skipped.
        checkpoint: Called now and then with what was seen so far.

    Raises:
        DataError: The data does not fit the model, or an activation is NaN or infinite.
        ModelError: A tensor does not exist or is not of floats, or the model does not load.
    """
    names = list(tensors)
    inputs = {value.name for value in model.graph.inputs}
    clone = _with_outputs(model, names)
    session = runtime.session(clone, provider=provider, memory_flat=True)
    exposed = [value.name or "" for value in clone.graph.outputs]
    _refuse_others_than_floats(session, names)
    identity = fingerprint(model)
    seen = 0 if begun is None else begun.samples
    states: dict[str, State] = {name: observer.init() for name in names}
    if begun is not None:
        _require_same(begun, identity, feeds, observer)
        states |= begun.states
    computed = [name for name in exposed if name not in inputs]

    def store() -> CalibStore:
        return CalibStore(
            states=dict(states),
            fingerprint=identity,
            feeds=feeds.description,
            samples=seen,
            observer=observer.name,
            settings=observer.settings,
            is_random=feeds.is_random,
        )

    def observe(name: str, array: Array, label: str) -> State:
        state = _observe(observer, states[name], array, tensors[name], name)
        _require_finite(state, name, label)
        return state

    saved = time.monotonic()
    remaining = feeds.skip(seen) if seen else feeds
    with (
        progress("Calibrating", remaining.length) as advance,
        ThreadPoolExecutor(threads.count()) as pool,
    ):
        for sample in remaining:
            arrays = runtime.run(session, computed, sample.feed, sample.label)
            arrays.reverse()
            taps = [sample.feed[name] if name in inputs else arrays.pop() for name in names]
            labels = itertools.repeat(sample.label)
            states.update(zip(names, pool.map(observe, names, taps, labels), strict=True))
            del taps
            seen += 1
            advance()
            if checkpoint is not None and time.monotonic() - saved > _CHECKPOINT_SECONDS:
                checkpoint(store())
                saved = time.monotonic()
    return store()


def _require_same(begun: CalibStore, identity: str, feeds: FeedSource, observer: Observer) -> None:
    begun.require(identity)
    before, now = (begun.feeds, begun.observer), (feeds.description, observer.name)
    if before != now:
        raise DataError(
            f"The calibration to resume was of {before[0]} with the observer {before[1]}; this one "
            f"is of {now[0]} with {now[1]}.",
            "Resume with the same data and observer, or begin anew without --resume.",
        )


def _observe(observer: Observer, state: State, array: Array, axis: int, name: str) -> State:
    # A tensor without that axis has no channels: one for all of it.
    has_axis = -array.ndim <= axis < array.ndim
    channels = np.moveaxis(array, axis, 0) if has_axis else array.reshape(1, -1)
    try:
        return observer.update(state, channels)
    except DataError as failure:
        raise DataError(f"Tensor '{name}': {failure.what}", failure.fix) from failure


def _with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone that shares the weights and computes `names` only, in their order."""
    clone = model.clone()
    graph = clone.graph
    values = {value.name: value for value in graph.inputs}
    for each in in_branches(clone):
        values.update((value.name, value) for node in each for value in node.outputs)
    exposer = Exposer(Editor(clone))
    outputs = []
    for name in names:
        value = values.get(name)
        if value is None or name in graph.initializers:
            near = difflib.get_close_matches(name, [n for n in values if n], n=1)
            raise ModelError(
                f"'{name}' is not an activation that the model computes once.",
                f"Did you mean '{near[0]}'?" if near else None,
            )
        outputs.append(exposer.expose(value))
    graph.outputs[:] = outputs
    return clone


def _refuse_others_than_floats(session: ort.InferenceSession, names: Sequence[str]) -> None:
    for name, output in zip(names, session.get_outputs(), strict=True):
        if output.type not in _FLOATS:
            raise ModelError(
                f"'{name}' is a {output.type}; only float, float16 and double are calibrated.",
                "Leave it out.",
            )


def _require_finite(state: State, name: str, label: str) -> None:
    if not all(np.isfinite(array).all() for array in state.values()):
        raise DataError(
            f"Tensor '{name}' holds NaN or infinity for {label}.",
            "Check the data; if the float model itself overflows there, leave the op in float.",
        )
