"""Values inside a model, read from outside: they become the outputs of a clone of the model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.errors import ModelError
from onnxq.passes.edit import Editor
from onnxq.passes.expose import Exposer, in_branches
from onnxq.types import Array

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


class Taps:
    """All of some values of a model in one inference.

    Args:
        model: Not modified; the weights are shared.
        names: Of the values: graph inputs, outputs or anything between, also in the branches of an
            If.
        provider: The execution provider of ONNX Runtime.

    Raises:
        ModelError: A value does not exist or is not of floats, or the model does not load.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], provider: str = "cpu") -> None:
        self._names = names
        self._inputs = {value.name for value in model.graph.inputs}
        clone = model.clone()
        clone.graph.outputs[:] = _exposed(clone, names)
        self._session = runtime.session(clone, provider=provider, memory_flat=True)
        for name, output in zip(names, self._session.get_outputs(), strict=True):
            if output.type not in _FLOATS:
                raise ModelError(
                    f"'{name}' is a {output.type}; only float, float16 and double are calibrated.",
                    "Leave it out.",
                )
        exposed = [value.name or "" for value in clone.graph.outputs]
        self._computed = [name for name in exposed if name not in self._inputs]

    def run(self, sample: Sample) -> list[Array]:
        """The values for one feed, in the order of their names.

        Raises:
            DataError: ONNX Runtime fails on the feed.
        """
        arrays = runtime.run(self._session, self._computed, sample.feed, sample.label)
        arrays.reverse()
        return [sample.feed[n] if n in self._inputs else arrays.pop() for n in self._names]


def sizes(
    model: ir.Model, names: Sequence[str], sample: Sample, provider: str = "cpu"
) -> dict[str, int]:
    """How many bytes the values of `Taps` take for one feed, of which none is kept."""
    clone = model.clone()
    editor = Editor(clone)
    values = _exposed(clone, names)
    clone.graph.outputs[:] = [
        editor.node(
            "Size",
            [value],
            name=f"{value.name}_size",
            after=value.producer(),
            graph=clone.graph,
            dtype=ir.DataType.INT64,
            shape=ir.Shape([]),
        )
        for value in values
    ]
    session = runtime.session(clone, provider=provider, memory_flat=True)
    outputs = [value.name or "" for value in clone.graph.outputs]
    counts = runtime.run(session, outputs, sample.feed, sample.label)
    return {
        name: int(count * (value.dtype or ir.DataType.FLOAT).itemsize)
        for name, value, count in zip(names, values, counts, strict=True)
    }


def _exposed(model: ir.Model, names: Sequence[str]) -> list[ir.Value]:
    """The values as the main graph sees them, in the order of `names`."""
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    for each in in_branches(model):
        values.update((value.name, value) for node in each for value in node.outputs)
    exposer = Exposer(Editor(model))
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
    return outputs
