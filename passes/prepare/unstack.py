"""Weights of their own for what is cut out of a stack of weights: the experts of a layer.

    Gather(W, i)    Slice(W, i, j)    Split(W)    Squeeze(W)        with constant i, j

Parts along the first axis are whole in memory, so nothing is copied: see `onnxq.views`. Constant
folding leaves such ops, whose results are large, to the runtime.
"""

from __future__ import annotations

import math
from itertools import accumulate

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, constant, constant_array, remove, rewire
from onnxq.passes.value_types import FLOATS
from onnxq.types import Array
from onnxq.views import view

_Part = tuple[int, tuple[int, ...]]  # the first element, and the shape


class Unstack(GraphPass):
    """Each part of a constant of three or more dimensions becomes a constant.

    A stack that is read in any other way too stays as it is: it would be stored beside its parts.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor, count = Editor(model), 0
        waiting = [v for v in model.graph.initializers.values() if _is_stack(v)]
        while waiting:
            stack = waiting.pop()
            parts = _unstack(stack, editor)
            count += len(parts)
            waiting += [part for part in parts if _is_stack(part)]
        return count


def _is_stack(value: ir.Value) -> bool:
    tensor = constant(value)
    return (
        tensor is not None
        and not value.is_graph_output()
        and tensor.dtype in FLOATS
        and len(tensor.shape.numpy()) > 2
    )


def _unstack(stack: ir.Value, editor: Editor) -> list[ir.Value]:
    """The parts that took its place."""
    tensor = stack.const_value
    assert tensor is not None
    shape = tuple(tensor.shape.numpy())
    nodes = dict.fromkeys(node for node, _ in stack.uses())
    found = {node: _parts(node, stack, shape) for node in nodes}
    if not found or any(parts is None for parts in found.values()):
        return []
    made: dict[_Part, ir.Value] = {}
    for node, parts in found.items():
        for output, (first, size) in zip(node.outputs, parts or [], strict=True):
            if (first, size) not in made:
                part = view(tensor, size, first)
                name = f"{stack.name}_part"
                made[first, size] = editor.initializer(editor.model.graph, name, part)
            rewire(output.uses(), made[first, size])
    remove(found)
    assert stack.name is not None
    editor.model.graph.initializers.pop(stack.name)
    return list(made.values())


def _parts(node: ir.Node, stack: ir.Value, shape: tuple[int, ...]) -> list[_Part] | None:
    """What the outputs of `node` hold of a stack of `shape`; None if it is no such parts of it."""
    is_output = any(output.is_graph_output() for output in node.outputs)
    if node.domain or is_output or node.inputs[0] is not stack or stack in list(node.inputs)[1:]:
        return None
    numbers = [constant_array(value) for value in node.inputs[1:]]
    if any(number is None for number in numbers):
        return None
    match node.op_type, [number for number in numbers if number is not None]:
        case "Gather", [index] if node.attributes.get_int("axis", 0) == 0 and index.size == 1:
            return [_rows(shape, int(index.item()) % shape[0], index.shape)]
        case "Slice", [first, last, axes, *steps] if _is_first_axis(axes, steps, shape):
            low, high, _ = slice(int(first.item()), int(last.item())).indices(shape[0])
            return [_rows(shape, low, (high - low,))] if high > low else None
        case "Split", sizes if node.attributes.get_int("axis", 0) == 0:
            lengths = _lengths(shape[0], len(node.outputs), sizes)
            starts = accumulate(lengths[:-1], initial=0)
            return [
                _rows(shape, start, (length,))
                for start, length in zip(starts, lengths, strict=True)
            ]
        case "Squeeze", axes:
            given = {int(axis) % len(shape) for each in axes for axis in each.reshape(-1)}
            gone = given or {axis for axis, size in enumerate(shape) if size == 1}
            return [(0, tuple(size for axis, size in enumerate(shape) if axis not in gone))]
    return None


def _rows(shape: tuple[int, ...], first: int, lead: tuple[int, ...]) -> _Part:
    """The part from row `first` on, with `lead` in place of the first dimension."""
    return first * math.prod(shape[1:]), (*lead, *shape[1:])


def _is_first_axis(axes: Array, steps: list[Array], shape: tuple[int, ...]) -> bool:
    along = [int(axis) % len(shape) for axis in axes.reshape(-1)]
    return along == [0] and all(int(step.item()) == 1 for step in steps)


def _lengths(rows: int, outputs: int, sizes: list[Array]) -> list[int]:
    if sizes:
        return [int(size) for size in sizes[0]]
    each = -(-rows // outputs)
    return [min(each, rows - each * index) for index in range(outputs)]
