"""The quantized model beside the float one, on the same inputs.

    x -----> the model -------------> every value v
    x -----> its copy, quantized ---> v'

One inference tells how far each value is off by all that was quantized before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.passes.edit import Editor, constant
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.insert import ActivationParams
from onnxq.passes.qdq.sums import Measure, Sums
from onnxq.passes.qdq.twins import Twins, sites
from onnxq.passes.transforms.correct_bias import CorrectBias
from onnxq.types import Array


@dataclass(frozen=True)
class Beside:
    """Names of outputs of a model that has its quantized self beside it.

    Attributes:
        outputs: The outputs of the float model, each with that of its copy.
        sites: For each planned op, by name, the sums where its error shows; none for an op in a
            branch or a loop.
        values: The sums over values that nodes of several activations read, by name.
    """

    outputs: list[tuple[str, str]]
    sites: dict[str, list[Sums]]
    values: dict[str, Sums]


def put_beside(
    model: ir.Model,
    plan: QuantPlan,
    params: ActivationParams,
    shifts: Mapping[str, Array] | None = None,
) -> Beside:
    """Put a quantized copy beside `model`, whose outputs become those of both, and sums.

    Args:
        model: The float model, edited in place.
        plan: The static plan of this very model.
        params: Gives the calibrated scale and zero point of a value by its name.
        shifts: What to take from the biases of the copy: see `CorrectBias`.
    """
    nodes = list(model.graph)
    watched = {op.node: sites(plan.graph_nodes[op.node]) for op in plan.ops}
    mixed = _mixed(nodes)
    editor = Editor(model)
    twins = Twins(editor, plan)
    copies, copied_nodes, copied_outputs = _copy(editor, twins)
    for op in plan.ops:
        output = None if op.output is None else copies[op.output.name or ""]
        twins.put(op, copied_nodes[op.node], output)
    for residual in plan.residuals:
        twins.join(residual, copied_nodes[residual.node])
    measure = Measure(editor)
    in_main = set(nodes)
    values = {value.name or "": measure.sums(value, copies[value.name or ""]) for value in mixed}
    at_sites = {
        op.node: [measure.sums(y, copies[y.name or ""]) for y in watched[op.node]]
        for op in plan.ops
        if plan.graph_nodes[op.node] in in_main
    }
    CorrectBias(twins.plan(), shifts or {})(model)
    twins.quantize(params)
    outputs = list(zip(model.graph.outputs, copied_outputs, strict=True))
    pairs = [(a.name or "", b.name or "") for a, b in outputs]
    both = {value: None for pair in outputs for value in pair}
    model.graph.outputs[:] = [*both, *measure.outputs]
    return Beside(pairs, at_sites, values)


def _mixed(nodes: list[ir.Node]) -> list[ir.Value]:
    """The computed floats that are one of several which a node reads."""
    found: dict[ir.Value, None] = {}
    for node in nodes:
        read = [value for value in node.inputs if value is not None and constant(value) is None]
        if len(set(read)) > 1:
            found |= {v: None for v in read if v.producer() is not None and _is_float(v)}
    return list(found)


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _copy(
    editor: Editor, twins: Twins
) -> tuple[dict[str, ir.Value], dict[str, ir.Node], list[ir.Value]]:
    """A second copy of all nodes, beside them, that reads the same inputs and constants.

    Returns:
        The copied values and nodes by the names of their originals, and the outputs.
    """
    graph, copy = editor.model.graph, editor.model.graph.clone()
    shared = dict(zip(copy.inputs, graph.inputs, strict=True))
    shared |= {
        value: graph.initializers[name]
        for name, value in copy.initializers.items()
        if value not in shared
    }
    outputs = [shared.get(value, value) for value in copy.outputs]
    copy.outputs[:] = []
    for value, original in shared.items():
        value.replace_all_uses_with(original)
    copied = list(copy.all_nodes())
    nodes = {node.name or "": node for node in copied}
    values = {value.name or "": value for node in copied for value in node.outputs if value.name}
    for node in copied:
        node.name = editor.names.new(f"{node.name}_quantized")
    originals = {value.name: value for node in graph.all_nodes() for value in node.outputs}
    for name, value in values.items():
        value.name = editor.names.new(f"{name}_quantized")
        twins.alias(value, originals[name])
    # Each beside its original, so that values are dropped as soon as both are known.
    for before, node in zip(list(graph), list(copy), strict=True):
        copy.remove(node)
        graph.insert_after(before, node)
    return values, nodes, outputs
