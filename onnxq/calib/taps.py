"""Values inside a model, read from outside: they become the outputs of a clone of the model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.errors import ModelError
from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer, values_by_name
from onnxq.types import Array

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
_SEQUENCES = tuple(f"seq({each})" for each in _FLOATS)


class Taps:
    """All of some values of a model in one inference.

    Args:
        model: Not modified; the weights are shared.
        names: Of the values: graph inputs, outputs or anything between, also in the branches of an
            If and the body of a Loop.
        provider: The execution provider of ONNX Runtime.

    Raises:
        ModelError: A value does not exist or is not of floats, or the model does not load.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], provider: str = "cpu") -> None:
        self._names = names
        self._inputs = {value.name for value in model.graph.inputs}
        clone = model.clone()
        _expose(clone, names)
        self._session = runtime.session(clone, provider=provider, memory_flat=True)
        for name, output in zip(names, self._session.get_outputs(), strict=True):
            if output.type not in _FLOATS + _SEQUENCES:
                raise ModelError(
                    f"'{name}' is a {output.type}; only float, float16 and double are calibrated.",
                    "Leave it out.",
                )
        exposed = [value.name or "" for value in clone.graph.outputs]
        self._computed = [name for name in exposed if name not in self._inputs]

    def run(self, sample: Sample) -> list[list[Array]]:
        """The values for one feed, in the order of their names: in a Loop one an iteration.

        Raises:
            DataError: ONNX Runtime fails on the feed.
        """
        found = runtime.run(self._session, self._computed, sample.feed, sample.label)
        found.reverse()
        taps = [sample.feed[n] if n in self._inputs else found.pop() for n in self._names]
        return [tap if isinstance(tap, list) else [tap] for tap in taps]


def sizes(
    model: ir.Model, names: Sequence[str], sample: Sample, provider: str = "cpu"
) -> dict[str, int]:
    """How many bytes the values of `Taps` take for one feed, of which none is kept."""
    clone = model.clone()
    editor = Editor(clone)
    values = [values_by_name(clone)[name] for name in names]
    exposer = Exposer(editor)
    clone.graph.outputs[:] = [exposer.total(_size(editor, value)) for value in values]
    session = runtime.session(clone, provider=provider, memory_flat=True)
    outputs = [value.name or "" for value in clone.graph.outputs]
    counts = runtime.run(session, outputs, sample.feed, sample.label)
    return {
        name: int(count * (value.dtype or ir.DataType.FLOAT).itemsize)
        for name, value, count in zip(names, values, counts, strict=True)
    }


def _size(editor: Editor, value: ir.Value) -> ir.Value:
    assert isinstance(value.graph, ir.Graph)
    return editor.node(
        "Size",
        [value],
        name=f"{value.name}_size",
        after=value.producer(),
        graph=value.graph,
        dtype=ir.DataType.INT64,
        shape=ir.Shape([]),
    )


def _expose(model: ir.Model, names: Sequence[str]) -> None:
    """Make the values the outputs of `model`, in the order of `names`."""
    exposer = Exposer(Editor(model))
    values = values_by_name(model)
    exposed = []
    for name in names:
        value = _find(values, name)
        exposed.append(exposer.expose(value).name or "")
        if value.graph is not model.graph:  # a Loop around it may have changed its outputs
            values = values_by_name(model)
    model.graph.outputs[:] = [values[name] for name in exposed]


def _find(values: Mapping[str, ir.Value], name: str) -> ir.Value:
    value = values.get(name)
    if value is None or value.is_initializer():
        near = difflib.get_close_matches(name, [n for n in values if n], n=1)
        raise ModelError(
            f"'{name}' is not an activation whose values can be read.",
            f"Did you mean '{near[0]}'?" if near else None,
        )
    return value
