"""Calibration: run the feeds through the model and show the observer each tapped tensor.

The tapped tensors become the outputs of a clone of the model, so one inference gives all of them.
A tap is observed and dropped before the next feed is read: memory follows the largest feed, not
the number of feeds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import FeedSource
from onnxq.calib.fingerprint import fingerprint
from onnxq.calib.store import CalibStore
from onnxq.errors import DataError, ModelError
from onnxq.observers import Observer, State
from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer, in_branches
from onnxq.progress import progress
from onnxq.types import Array

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


def calibrate(
    model: ir.Model,
    feeds: FeedSource,
    tensors: Mapping[str, int],
    observer: Observer,
    provider: str = "cpu",
) -> CalibStore:
    """Observe `tensors` while the feeds run through the model, which is not modified.

    Args:
        model: The float model.
        feeds: The data, from `open_feeds`.
        tensors: The channel axis of each tensor to observe, by its name: graph inputs, outputs or
            anything between, also in the branches of an If.
        observer: What to remember of them.
        provider: The execution provider of ONNX Runtime.

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
    states: dict[str, State] = {name: observer.init() for name in names}
    samples = 0
    with progress("Calibrating", feeds.length) as advance:
        for sample in feeds:
            computed = [name for name in exposed if name not in inputs]
            arrays = runtime.run(session, computed, sample.feed, sample.label)
            arrays.reverse()
            for name in names:
                array = sample.feed[name] if name in inputs else arrays.pop()
                _require_finite(array, name, sample.label)
                states[name] = _observe(observer, states[name], array, tensors[name], name)
            samples += 1
            advance()
    return CalibStore(
        states=states,
        fingerprint=fingerprint(model),
        feeds=feeds.description,
        samples=samples,
        observer=observer.name,
        settings=observer.settings,
        is_random=feeds.is_random,
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


def _require_finite(array: Array, name: str, label: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(array.sum())  # one fast pass; a sum may also just overflow
    if suspicious and not np.isfinite(array).all():
        raise DataError(
            f"Tensor '{name}' holds NaN or infinity for {label}.",
            "Check the data; if the float model itself overflows there, leave the op in float.",
        )
