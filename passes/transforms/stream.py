"""The residual stream of a model: the values that its layers add to and read through their norms.

    x' = x + f(norm(x)),    norm(x) = g * x / rms(x)

Everything that holds x, x / rms(x) included, turns with it: sums, casts, products with one number
for all channels. rms(x) stays what it is. Where x comes from or goes to, the turn is taken in by
weights: those of what is added to it (columns), of what reads it (rows, behind g), of a table whose
rows are looked up here alone. What cannot take it in is turned, or turned back, at run time. That
costs little at the two ends of the stream, as for a table that is the head's weight too, and is
refused inside. A LayerNormalization subtracts the mean of the channels, which does not turn with
them: it is no norm here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.passes.edit import constant
from onnxq.passes.transforms.channels import (
    SAME,
    is_mean,
    is_square,
    passes_on,
    product,
    stretched,
    width_of,
)

_FUSED = ("RMSNormalization", "SimplifiedLayerNormalization")
_SKIP = "SkipSimplifiedLayerNormalization"
_SUM = 3  # the output of _SKIP that is the sum
_ENDS = 2  # places where a stream may be turned at run time


@dataclass(frozen=True)
class Norm:
    """Factors g for each channel, and what reads the result.

    Attributes:
        node: A norm with g, or the Mul by g behind one that is written in parts.
        scale: The index of its input that is g.
        products: The nodes that multiply the result by a weight; None if others read it too. Only
            a norm that is one node may have such: else what is multiplied by g is turned back.
    """

    node: ir.Node
    scale: int
    products: tuple[ir.Node, ...] | None

    @property
    def is_fused(self) -> bool:
        """Whether the node is the whole norm."""
        return self.node.op_type != "Mul"


@dataclass
class Stream:
    """A residual stream.

    Attributes:
        width: How many channels it has.
        values: Its values.
        writers: Products that are added to it.
        readers: Products that read it as it is.
        norms: What reads it otherwise.
        tables: Gathers of rows of a table.
        constants: What is added to all rows: node, index of the input.
        entries: Values that have to be turned at run time.
        exits: Values that have to be turned back at run time, for these inputs of nodes, and where
            they are outputs of the model.
        problem: Why it cannot be turned at all, if it cannot.
    """

    width: int
    values: dict[ir.Value, None] = field(default_factory=dict)
    writers: dict[ir.Node, None] = field(default_factory=dict)
    readers: dict[ir.Node, None] = field(default_factory=dict)
    norms: list[Norm] = field(default_factory=list)
    tables: dict[ir.Node, None] = field(default_factory=dict)
    constants: dict[tuple[ir.Node, int], None] = field(default_factory=dict)
    entries: dict[ir.Value, None] = field(default_factory=dict)
    exits: dict[ir.Value, list[tuple[ir.Node, int]]] = field(default_factory=dict)
    problem: str = ""

    @property
    def products(self) -> set[ir.Node]:
        """Those that take the turn in."""
        behind = (node for norm in self.norms for node in norm.products or ())
        return {*self.writers, *self.readers, *behind}

    @property
    def ends(self) -> list[str]:
        """The names of values that are turned, or turned back, at run time."""
        unread = (norm.node.outputs[0] for norm in self.norms if norm.products is None)
        exits = (value for value in self.exits if value not in self.entries)
        return [value.name or "" for value in (*self.entries, *exits, *unread)]


def streams(model: ir.Model) -> list[Stream]:
    """The residual streams of a prepared model, those with a problem too."""
    found: list[Stream] = []
    seen: set[ir.Value] = set()
    for node in model.graph:
        seed = _seed(node)
        if seed is None or seed[0] in seen:
            continue
        stream = _Walk(*seed).run()
        seen.update(stream.values)
        if stream.products:
            found.append(stream)
    return found


def _seed(node: ir.Node) -> tuple[ir.Value, int] | None:
    """The value that a norm reads, and its width."""
    if node.op_type in (*_FUSED, _SKIP):
        value, scale = node.inputs[0], constant(node.inputs[_scale_index(node)])
        return None if value is None or scale is None else (value, scale.shape.numpy()[0])
    square = node.inputs[0].producer() if is_mean(node) and node.inputs[0] is not None else None
    if square is None or not is_square(square) or square.inputs[0] is None:
        return None
    width = width_of(square.inputs[0])
    return None if width is None else (square.inputs[0], width)


class _Walk:
    def __init__(self, seed: ir.Value, width: int) -> None:
        self._found = Stream(width)
        self._waiting = [seed]

    def run(self) -> Stream:
        """The stream that holds the seed."""
        found = self._found
        while self._waiting and not found.problem:
            value = self._waiting.pop()
            if value in found.values:
                continue
            found.values[value] = None
            self._before(value)
            for node, index in value.uses():
                self._behind(value, node, index)
            if value.is_graph_output():
                found.exits.setdefault(value, [])
        if not found.problem and len(found.ends) > _ENDS:
            found.problem = (
                f"{len(found.ends)} values would have to be turned at run time: "
                f"{', '.join(found.ends[: _ENDS + 1])} ..."
            )
        return found

    def _before(self, value: ir.Value) -> None:
        node = value.producer()
        if node is None:
            self._enter(value)
        elif node.op_type == _SKIP and value is node.outputs[_SUM]:
            self._go_on(*node.inputs[:2])
        elif node.domain:
            self._enter(value)
        elif node.op_type == "Add":
            self._add(node)
        elif node.op_type in SAME:
            self._go_on(node.inputs[0])
        elif node.op_type in ("Mul", "Div") and (at := stretched(node)) is not None:
            self._go_on(node.inputs[at])
        elif self._is_product(node, writes=True):
            self._found.writers[node] = None
        elif self._is_table(node):
            self._found.tables[node] = None
        else:
            self._enter(value)

    def _behind(self, value: ir.Value, node: ir.Node, index: int) -> None:
        if is_square(node) and all(is_mean(reader) for reader, _ in node.outputs[0].uses()):
            return
        if node.op_type in _FUSED and index == 0 and node.attributes.get_int("axis", -1) == -1:
            self._norm(node, _scale_index(node))
        elif node.op_type == _SKIP and index < 2 and not any(node.inputs[3:]):
            if index == 0 or node.inputs[0] is not value:
                self._norm(node, _scale_index(node))
            self._go_on(*node.inputs[:2])
            if len(node.outputs) > _SUM and node.outputs[_SUM].name:
                self._go_on(node.outputs[_SUM])
        elif node.domain:
            self._leave(value, node, index)
        elif passes_on(node, index):
            self._go_on(node.outputs[0])
        elif node.op_type == "Mul" and self._is_per_channel(node.inputs[1 - index]):
            norm = self._norm_of(node, 1 - index)
            if norm.products is None:
                self._leave(value, node, index)
            else:
                self._found.norms.append(norm)
        elif index == 0 and self._is_product(node, writes=False):
            self._found.readers[node] = None
        else:
            self._leave(value, node, index)

    def _norm(self, node: ir.Node, scale: int) -> None:
        if not self._is_per_channel(node.inputs[scale]):
            self._found.problem = f"the factors of '{node.name}' are no constant"
        elif all(norm.node is not node for norm in self._found.norms):
            self._found.norms.append(self._norm_of(node, scale))

    def _norm_of(self, node: ir.Node, scale: int) -> Norm:
        products = []
        output = node.outputs[0]
        for reader, index in _through_casts(output):
            if reader is None or index != 0 or not self._is_product(reader, writes=False):
                return Norm(node, scale, None)
            products.append(reader)
        return Norm(node, scale, tuple(products))

    def _add(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if constant(value) is None:
                self._go_on(value)
            elif self._is_per_channel(value):
                self._found.constants[node, index] = None
            else:
                self._found.problem = f"'{node.name}' adds a constant that is none for each channel"

    def _enter(self, value: ir.Value) -> None:
        node = value.producer()
        table = constant(node.inputs[0]) if node is not None and node.op_type == "Gather" else None
        width = width_of(value) if table is None else table.shape.numpy()[-1]
        if width != self._found.width:
            self._found.problem = (
                f"'{value.name}' is not known to have {self._found.width} channels"
            )
        self._found.entries[value] = None

    def _leave(self, value: ir.Value, node: ir.Node, index: int) -> None:
        self._found.exits.setdefault(value, []).append((node, index))

    def _go_on(self, *values: ir.Value | None) -> None:
        self._waiting += [value for value in values if value is not None]

    def _is_product(self, node: ir.Node, *, writes: bool) -> bool:
        """Whether the turn can go into the weight of `node`, and into its bias."""
        operands = product(node)
        if operands is None:
            return False
        axis = operands.output_axis if writes else operands.reduced_axis
        assert operands.weight.const_value is not None and axis is not None
        if operands.weight.const_value.shape.numpy()[axis] != self._found.width:
            return False
        at = operands.bias_index
        bias = node.inputs[at] if at is not None and at < len(node.inputs) else None
        return not writes or bias is None or self._is_per_channel(bias)

    def _is_table(self, node: ir.Node) -> bool:
        table = constant(node.inputs[0]) if node.op_type == "Gather" else None
        if table is None or node.attributes.get_int("axis", 0) != 0 or len(table.shape) != 2:
            return False
        assert node.inputs[0] is not None
        return table.shape.numpy()[1] == self._found.width and len(node.inputs[0].uses()) == 1

    def _is_per_channel(self, value: ir.Value | None) -> bool:
        tensor = constant(value)
        return tensor is not None and tuple(tensor.shape.numpy()) == (self._found.width,)


def _through_casts(value: ir.Value) -> Iterator[tuple[ir.Node | None, int]]:
    """What reads `value`, by way of casts or not; None for a reader outside the graph."""
    if value.is_graph_output():
        yield None, 0
    for node, index in value.uses():
        if node.op_type == "Cast" and not node.domain:
            yield from _through_casts(node.outputs[0])
        else:
            yield node, index


def _scale_index(node: ir.Node) -> int:
    return 2 if node.op_type == _SKIP else 1
