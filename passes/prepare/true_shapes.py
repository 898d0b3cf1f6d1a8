"""Drop the shapes of values that cannot be so.

A model whose inputs were made dynamic by hand still says of its inner values what was true of the
static export. Nothing reads that at run time, but what is computed from it beforehand would be
wrong: a Shape of a batch that is said to be 1. So shapes are inferred from the inputs alone, and if
one of them contradicts what the model says, nothing of that is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.passes.base import GraphPass
from onnxq.passes.quiet import quiet


class TrueShapes(GraphPass):
    """Replace the shapes of inner values by inferred ones where a single one is wrong.

    What a model says of its outputs is its interface, and stays.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        values = list(_inner(model))
        if all(value.shape is None for value in values):
            return 0
        inferred = [value.shape for value in _inferred(model)]
        symbols = {
            dim.value
            for value in model.graph.inputs
            for dim in value.shape or ()
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None
        }
        pairs = list(zip(values, inferred, strict=True))
        if not any(_contradict(value.shape, shape, symbols) for value, shape in pairs):
            return 0
        for value, shape in pairs:
            value.shape = None if shape is None else _known(shape, symbols)
        return len(pairs)


def _inner(model: ir.Model) -> Iterator[ir.Value]:
    """The outputs of all nodes that are no outputs of the model, in order."""
    outputs = set(model.graph.outputs)
    for node in model.graph.all_nodes():
        yield from (value for value in node.outputs if value not in outputs)


def _inferred(model: ir.Model) -> Iterator[ir.Value]:
    """The inner values of a copy whose shapes follow from the inputs."""
    clone = model.clone()
    for value in (*_inner(clone), *clone.graph.outputs):
        value.shape = None
    for graph in clone.graph.subgraphs():
        for value in graph.outputs:
            value.shape = None
    infer = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    with quiet("onnx_ir", logging.CRITICAL):
        infer(clone)
    return _inner(clone)


def _contradict(said: ir.Shape | None, found: ir.Shape | None, symbols: set[str]) -> bool:
    if said is None or found is None:
        return False
    return len(said) != len(found) or any(
        isinstance(one, int) and one != two and (isinstance(two, int) or two.value in symbols)
        for one, two in zip(said, found, strict=True)
    )


def _known(shape: ir.Shape, symbols: set[str]) -> ir.Shape:
    """The shape without the names that inference makes up."""
    return ir.Shape([d if isinstance(d, int) or d.value in symbols else None for d in shape])
