"""Decide what happens to every node, as data, before a single edge is touched.

A node is quantized if the recipe asks for its op type, its operands allow it, and the target runs
it in that precision. Every other node is kept in float, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import onnx_ir as ir

from onnxq import formats
from onnxq.errors import TargetError
from onnxq.passes.choices import BITS, choices
from onnxq.passes.edit import all_graphs, constant_array
from onnxq.passes.expose import readable_graphs
from onnxq.passes.qdq.rules import Operands, describe
from onnxq.passes.weights import needs_data
from onnxq.recipe import Recipe
from onnxq.targets import DynamicSupport, No, StaticSupport, Target, WeightOnlySupport
from onnxq.types import PerAxis, PerBlock, QuantSpec, ScaleType

Scheme: TypeAlias = Literal["static", "dynamic", "weight-only"]
Support: TypeAlias = StaticSupport | DynamicSupport | WeightOnlySupport

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CANDIDATES = (*_PRODUCTS, "GRU", "LSTM", "RNN")

_SCALE_TYPES: Mapping[ir.DataType, ScaleType] = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
}


@dataclass(frozen=True)
class PlannedOp:
    """A node that will be quantized.

    Attributes:
        node: Its name.
        op_type: Its op type.
        scheme: Weights and activations, with calibrated scales or with such that are found at run
            time, or weights only.
        operands: Where its activation, weight and bias are.
        weight: How the weight is quantized, by the axes of the initializer.
        algorithm: The weight algorithm.
        activation: How the activation is quantized; None for weights only.
        output: The value to be quantized after the op, with its spec; None if there is none. It is
            the op's own output, or that of the activation function fused into it.
        choices: What `weight` may be instead, for a budget to choose from: itself and others, that
            of the fewest bytes first.
    """

    node: str
    op_type: str
    scheme: Scheme
    operands: Operands
    weight: QuantSpec
    algorithm: str
    activation: QuantSpec | None = None
    output: ir.Value | None = None
    choices: tuple[QuantSpec, ...] = ()

    @property
    def precision(self) -> str:
        """What is multiplied, in short: "int8", "int4", "fp8", or "a16w8" of unlike widths."""
        weight = formats.get(self.weight.format)
        activation = weight if self.activation is None else formats.get(self.activation.format)
        same = activation.short == weight.short
        return weight.short if same else f"a{activation.bits}w{weight.bits}"


@dataclass(frozen=True)
class KeptFloat:
    """A node that stays in float, and why."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class QuantPlan:
    """Every decision about one model, recipe and target.

    Attributes:
        ops: What is quantized, in the order of the graph.
        kept: What is not.
        graph_nodes: The planned nodes themselves, by name.
        inputs: The name of the activation that each planned node reads, by the node's name.
    """

    target: Target
    recipe: Recipe
    ops: tuple[PlannedOp, ...]
    kept: tuple[KeptFloat, ...]
    graph_nodes: dict[str, ir.Node]
    inputs: dict[str, str]

    def activations(self) -> dict[str, int]:
        """The values to be calibrated, by name, in the order of the graph: their channel axes."""
        values: dict[str, int] = {}
        for op in self.ops:
            if op.scheme != "static":
                continue
            values.setdefault(self.inputs[op.node], op.operands.channel_axis)
            if op.output is not None and op.output.name is not None:
                values.setdefault(op.output.name, op.operands.channel_axis)
        return values

    def second_moments(self) -> dict[str, int]:
        """The values whose second moments weight algorithms need: their channel axes, by name."""
        return {
            self.inputs[op.node]: op.operands.channel_axis
            for op in self.ops
            if op.scheme == "weight-only" and needs_data(op.algorithm)
        }

    def leave_float(self, reasons: Mapping[str, str]) -> QuantPlan:
        """This plan without the ops named, each kept in float for its reason."""
        kept = [
            KeptFloat(o.node, o.op_type, reasons[o.node]) for o in self.ops if o.node in reasons
        ]
        ops = tuple(op for op in self.ops if op.node not in reasons)
        return replace(self, ops=ops, kept=(*self.kept, *kept))

    def with_weights(self, specs: Mapping[str, QuantSpec]) -> QuantPlan:
        """This plan with other specs for the weights of the ops named."""
        ops = tuple(replace(op, weight=specs.get(op.node, op.weight)) for op in self.ops)
        return replace(self, ops=ops)

    def to_rows(self) -> list[dict[str, str]]:
        """One row per node: what becomes of it, and how or why."""
        planned = [
            {
                "node": op.node,
                "op": op.op_type,
                "to": op.precision,
                "how or why": f"weight {op.weight}"
                + ("" if op.activation is None else f", activation {op.activation}")
                + (" at run time" if op.scheme == "dynamic" else ""),
            }
            for op in self.ops
        ]
        return planned + [
            {"node": kept.node, "op": kept.op_type, "to": "float", "how or why": kept.reason}
            for kept in self.kept
        ]

    def again(self, model: ir.Model) -> QuantPlan:
        """The same decisions about a copy of the model, or about the model after an edit."""
        fresh = make_plan(model, self.recipe, self.target)
        reasons = {kept.node: kept.reason for kept in self.kept}
        left = [op.node for op in fresh.ops if op.node in reasons]
        return fresh.leave_float({node: reasons[node] for node in left})


def make_plan(model: ir.Model, recipe: Recipe, target: Target) -> QuantPlan:
    """Plan the quantization of a prepared model.

    Args:
        model: As `onnxq.passes.prepare` leaves it; not modified.
        recipe: What to quantize.
        target: What it will run on.

    Raises:
        TargetError: The target cannot run the preset, or bits, a block size or zero points of the
            recipe.
    """
    support = _support(recipe, target)
    if isinstance(support, WeightOnlySupport):
        _check_weights(recipe, target, support)
    ops: list[PlannedOp] = []
    kept: list[KeptFloat] = []
    nodes: dict[str, ir.Node] = {}
    inputs: dict[str, str] = {}
    readable = readable_graphs(model)
    for graph in all_graphs(model):
        for node in graph:
            name = node.name or ""
            decision = _decide(node, recipe, support, readable=graph in readable)
            if isinstance(decision, No):
                kept.append(KeptFloat(name, node.op_type, decision.reason))
            else:
                ops.append(decision)
                nodes[name] = node
                source = node.inputs[decision.operands.activation]
                inputs[name] = (source.name if source is not None else None) or ""
    return QuantPlan(target, recipe, tuple(ops), tuple(kept), nodes, inputs)


def _support(recipe: Recipe, target: Target) -> Support:
    if recipe.is_static:
        return target.static(recipe.preset)
    return target.dynamic() if recipe.preset == "int8-dynamic" else target.weight_only()


def observable(model: ir.Model) -> dict[str, int]:
    """All values that a static plan of a prepared model may want to quantize.

    Returns:
        The channel axis of each, by its name.
    """
    values: dict[str, int] = {}
    for node in (node for graph in readable_graphs(model) for node in graph):
        if node.domain not in ("", "ai.onnx") or node.op_type not in _PRODUCTS:
            continue
        operands = describe(node)
        if isinstance(operands, No):
            continue
        for value in (node.inputs[operands.activation], _anchor(node.outputs[0])):
            if value is not None and value.name:
                values.setdefault(value.name, operands.channel_axis)
    return values


def _decide(node: ir.Node, recipe: Recipe, support: Support, *, readable: bool) -> PlannedOp | No:
    name = node.name or ""
    standard = node.domain in ("", "ai.onnx")
    if isinstance(support, StaticSupport) and standard and node.op_type in support.without_weights:
        return support.without_weights[node.op_type]
    if not standard or node.op_type not in CANDIDATES:
        return No(f"{node.op_type} has no weights to multiply by; the preset leaves it in float")
    if node.op_type not in recipe.ops:
        return No(f"{node.op_type} is not among the ops of the recipe ({', '.join(recipe.ops)})")
    if (pattern := recipe.float_pattern(name)) is not None:
        return No(f"excluded by '{pattern}'")
    if isinstance(support, DynamicSupport):
        return _dynamic(node, recipe, support)
    operands = describe(node)
    if isinstance(operands, No):
        return operands
    if isinstance(support, WeightOnlySupport):
        if not readable and needs_data(recipe.weights_of(name).algorithm):
            return No(
                "it is in the body of a Scan, where data is not read: choose another algorithm"
            )
        return _weight_only(node, operands, recipe, support)
    if not readable:
        return No("it is in the body of a Scan, where ranges are not calibrated")
    return _static(node, operands, recipe, support)


def _static(
    node: ir.Node, operands: Operands, recipe: Recipe, support: StaticSupport
) -> PlannedOp | No:
    supported = support.ops[operands.kind]
    if isinstance(supported, No):
        return supported
    needs_output = support.quantize_outputs and node.op_type == "Conv"
    return PlannedOp(
        node=node.name or "",
        op_type=node.op_type,
        scheme="static",
        operands=operands,
        weight=QuantSpec(support.weights, PerAxis(operands.output_axis)),
        algorithm=recipe.weights_of(node.name or "").algorithm,
        activation=support.activations,
        output=_anchor(node.outputs[0]) if needs_output else None,
    )


def _dynamic(node: ir.Node, recipe: Recipe, support: DynamicSupport) -> PlannedOp | No:
    lowering = support.lowerings[node.op_type]
    operands = lowering if isinstance(lowering, No) else describe(node)
    if isinstance(operands, No):
        return operands
    weight, axis = operands.weight.const_value, operands.reduced_axis
    assert weight is not None and axis is not None
    shape = weight.shape.numpy()
    # One scale per output, of every direction of an LSTM.
    is_matrix = len(shape) == 2
    granularity = PerAxis(operands.output_axis) if is_matrix else PerBlock(axis, shape[axis])
    return PlannedOp(
        node=node.name or "",
        op_type=node.op_type,
        scheme="dynamic",
        operands=operands,
        weight=QuantSpec(support.weights, granularity),
        algorithm=recipe.weights_of(node.name or "").algorithm,
        activation=support.activations,
    )


def _anchor(output: ir.Value) -> ir.Value:
    """The value behind a Relu or Clip that a runtime fuses into the op, else `output` itself."""
    uses = output.uses()
    if len(uses) == 1 and not output.is_graph_output():
        consumer = next(iter(uses)).node
        if consumer.op_type == "Relu":
            return consumer.outputs[0]
        if consumer.op_type == "Clip" and all(
            bound is None or constant_array(bound) is not None for bound in consumer.inputs[1:]
        ):
            return consumer.outputs[0]
    return output


def _weight_only(
    node: ir.Node, operands: Operands, recipe: Recipe, support: WeightOnlySupport
) -> PlannedOp | No:
    weights = recipe.weights_of(node.name or "")
    assert operands.reduced_axis is not None
    assert operands.weight.const_value is not None
    reduced = operands.weight.const_value.shape.numpy()[operands.reduced_axis]
    if not support.shared_weights and _readers(operands.weight) > 1:
        return No("other nodes read its weight too, which the target then dequantizes in float")
    dtype = operands.weight.dtype or ir.DataType.FLOAT
    scale_dtype = _SCALE_TYPES.get(dtype, "float32")
    found = choices(weights, reduced, operands.reduced_axis, scale_dtype, support)
    if isinstance(found, No):
        return found
    return PlannedOp(
        node=node.name or "",
        op_type=node.op_type,
        scheme="weight-only",
        operands=operands,
        weight=found[0],
        algorithm=weights.algorithm,
        choices=tuple(found),
    )


def _readers(weight: ir.Value) -> int:
    """How many ops read `weight`, through a Transpose or not."""
    readers = [node for node, _ in weight.uses()]
    transposed = sum(len(n.outputs[0].uses()) - 1 for n in readers if n.op_type == "Transpose")
    return len(readers) + transposed


def _check_weights(recipe: Recipe, target: Target, support: WeightOnlySupport) -> None:
    rules = [rule.weights for rule in recipe.rules if rule.weights is not None]
    for weights in (recipe.weights, *rules):
        size, bits = weights.block_size, weights.bits or recipe.weights.bits or BITS
        if isinstance(size, int) and size not in support.block_sizes:
            sizes = ", ".join(map(str, support.block_sizes))
            raise TargetError(
                f"Target '{target.name}' has no kernel for block size {size}.",
                f"Choose one of {sizes}.",
            )
        if bits != "auto" and bits not in support.bits:
            raise TargetError(
                f"Target '{target.name}' has no kernel for weights of {bits} bits.",
                f"Choose {' or '.join(map(str, support.bits))}.",
            )
        if weights.symmetric is False and not support.zero_points:
            raise TargetError(
                f"Target '{target.name}' takes 4-bit weights without zero points only.",
                "Leave out 'symmetric: false'.",
            )
        widths = support.bits if bits == "auto" else (bits,)
        if weights.float_zero_points and not {*widths} & {*support.float_zero_points}:
            raise TargetError(
                f"Target '{target.name}' takes no float zero points of {bits}-bit weights.",
                "Leave out 'float_zero_points'.",
            )
