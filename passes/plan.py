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
from onnxq.errors import RecipeError
from onnxq.passes import pointwise, stacks
from onnxq.passes.choices import BITS, CODEBOOK, choices
from onnxq.passes.demands import check_weights
from onnxq.passes.edit import all_graphs, constant_array
from onnxq.passes.experts import (
    EXPERTS,
    describe_experts,
    expert_weights,
    is_experts,
    misfit,
)
from onnxq.passes.expose import readable_graphs
from onnxq.passes.heads import is_head
from onnxq.passes.light import is_light
from onnxq.passes.names import names_of
from onnxq.passes.qdq.rules import Operands, describe
from onnxq.passes.qdq.rules.base import TABLE
from onnxq.passes.residuals import Residual, residuals
from onnxq.passes.ties import readers, tie
from onnxq.passes.weights import needs_data
from onnxq.recipe import Recipe, Weights
from onnxq.targets import DynamicSupport, No, StaticSupport, Target, WeightOnlySupport
from onnxq.types import PerAxis, PerBlock, QuantSpec, ScaleType

Scheme: TypeAlias = Literal["static", "dynamic", "weight-only"]
Support: TypeAlias = StaticSupport | DynamicSupport | WeightOnlySupport

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CANDIDATES = (*_PRODUCTS, "Gather", "GRU", "LSTM", "MoE", "RNN")

_NO_CODES = "an op that reads what it adds, or makes it, stays in float: there are no codes to read"
_TABLE_FORMAT = "int8"  # of tables beside products in 8 bits, fp8 ones too: it is the truest
# If the algorithm goes by activations: tables multiply none, and experts in one op some inside.
_WITHOUT_DATA = "auto"
_ACTIVATION_TYPES: Mapping[str, ir.DataType] = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
}
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
        activation: How the activation is quantized; None for weights only, and for tables.
        output: The value to be quantized after the op, with its spec; None if there is none. It is
            the op's own output, or that of the activation function fused into it.
        choices: What `weight` may be instead, for a budget to choose from: itself and others, that
            of the fewest bytes first.
        accuracy_level: Of a product with weights only: see `onnxq.recipe.Weights`.
        tied: Whether a table and products have the same codes; see `onnxq.passes.ties`.
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
    accuracy_level: int = 0
    tied: bool = False

    @property
    def is_table(self) -> bool:
        """Whether its rows are looked up; otherwise it is multiplied."""
        return self.operands.kind == TABLE

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
        residuals: The sums that read what the ops before and beside them have in low precision.
        rotation: Whether the residual stream is rotated, or why not, in words; empty where that is
            not asked.
    """

    target: Target
    recipe: Recipe
    ops: tuple[PlannedOp, ...]
    kept: tuple[KeptFloat, ...]
    graph_nodes: dict[str, ir.Node]
    inputs: dict[str, str]
    residuals: tuple[Residual, ...] = ()
    rotation: str = ""

    @property
    def products(self) -> tuple[PlannedOp, ...]:
        """The ops that multiply an activation."""
        return tuple(op for op in self.ops if not op.is_table)

    @property
    def activation_type(self) -> ir.DataType | None:
        """What activations become; None if they stay as they are."""
        asked = _ACTIVATION_TYPES.get(self.recipe.activation_dtype or "")
        return None if all(op.operands.weight.dtype == asked for op in self.ops) else asked

    def activations(self) -> dict[str, int]:
        """The values to be calibrated, by name, in the order of the graph: their channel axes."""
        values: dict[str, int] = {}
        for op in self.products:
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
            for op in self.products
            if op.scheme == "weight-only" and needs_data(op.algorithm)
        }

    def leave_float(self, reasons: Mapping[str, str]) -> QuantPlan:
        """This plan without the ops and sums named, each kept in float for its reason."""
        tied_bits = self.target.weight_only().tied_bits if self.recipe.preset == "int4" else None
        ops, tables = tie([op for op in self.ops if op.node not in reasons], tied_bits)
        reasons = {**tables, **reasons}
        kept = [
            KeptFloat(o.node, o.op_type, reasons[o.node]) for o in self.ops if o.node in reasons
        ]
        still = {r for r, _ in residuals(ops, self.graph_nodes)} if self.residuals else {}
        sums = tuple(r for r in self.residuals if r in still and r.node not in reasons)
        kept += [
            KeptFloat(r.node, "Add", reasons.get(r.node, _NO_CODES))
            for r in self.residuals
            if r not in sums
        ]
        return replace(self, ops=tuple(ops), kept=(*self.kept, *kept), residuals=sums)

    def kept_wide(self, reasons: Mapping[str, str]) -> QuantPlan:
        """This plan, where it is said of the nodes named why they compute in float32."""
        kept = (
            replace(k, reason=f"{k.reason}; computed in float32: {reasons[k.node]}")
            if k.node in reasons
            else k
            for k in self.kept
        )
        return replace(self, kept=tuple(kept))

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
                + (f" by {op.algorithm}" if op.scheme == "weight-only" else "")
                + ("" if op.activation is None else f", activation {op.activation}")
                + (" at run time" if op.scheme == "dynamic" else ""),
            }
            for op in self.ops
        ]
        planned += [
            {"node": r.node, "op": "Add", "to": r.precision, "how or why": f"reads {r.activation}"}
            for r in self.residuals
        ]
        return planned + [
            {"node": kept.node, "op": kept.op_type, "to": "float", "how or why": kept.reason}
            for kept in self.kept
        ]

    def again(self, model: ir.Model) -> QuantPlan:
        """The same decisions about a copy of the model, or about the model after an edit."""
        fresh = make_plan(model, self.recipe, self.target)
        reasons = {kept.node: kept.reason for kept in self.kept}
        planned = [*(op.node for op in fresh.ops), *(r.node for r in fresh.residuals)]
        left = [node for node in planned if node in reasons]
        fresh = fresh.leave_float({node: reasons[node] for node in left})
        return replace(fresh, rotation=self.rotation)


def make_plan(model: ir.Model, recipe: Recipe, target: Target) -> QuantPlan:
    """Plan the quantization of a prepared model.

    Args:
        model: As `onnxq.passes.prepare` leaves it; not modified.
        recipe: What to quantize.
        target: What it will run on.

    Raises:
        RecipeError: The recipe has something for the head of the model, which has none.
        TargetError: The target cannot run the preset, or bits, a block size or zero points of the
            recipe.
    """
    if recipe.head is not None and not any(_is_product_head(node) for node in model.graph):
        raise RecipeError(
            "The model has no head: no MatMul or Gemm has a result that is an output.",
            "Leave out 'head' (--head-bits), or give a rule with the name of a node.",
        )
    support = _support(recipe, target)
    if isinstance(support, WeightOnlySupport):
        check_weights(recipe, target, support)
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
    sums: list[Residual] = []
    if isinstance(support, StaticSupport) and support.residuals_in_codes:
        for residual, node in residuals(ops, nodes):
            if recipe.float_pattern(residual.node) is None:
                sums.append(residual)
                nodes[residual.node] = node
        kept = [each for each in kept if each.node not in nodes]
    planned = QuantPlan(target, recipe, tuple(ops), tuple(kept), nodes, inputs, tuple(sums))
    return planned.leave_float({})


def _is_product_head(node: ir.Node) -> bool:
    return node.op_type in ("Gemm", "MatMul") and is_head(node)


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
    standard = node.domain in ("", "ai.onnx")
    if isinstance(support, StaticSupport) and standard and node.op_type in support.without_weights:
        return support.without_weights[node.op_type]
    if not (standard or is_experts(node)) or node.op_type not in CANDIDATES:
        return No(f"{node.op_type} has no weights to multiply by; the preset leaves it in float")
    if isinstance(support, WeightOnlySupport) and node.op_type == "Conv":
        return pointwise.why_conv(node, recipe, support)
    if node.op_type not in recipe.ops:
        return No(f"{node.op_type} is not among the ops of the recipe ({', '.join(recipe.ops)})")
    if (pattern := recipe.float_pattern(*names_of(node))) is not None:
        return No(f"excluded by '{pattern}'")
    if isinstance(support, DynamicSupport):
        return _dynamic(node, recipe, support)
    if isinstance(support, WeightOnlySupport):
        return _in_blocks(node, recipe, support, readable=readable)
    operands = describe(node)
    if isinstance(operands, No):
        return operands
    if operands.kind == TABLE:
        supported = support.ops[TABLE]
        return supported if isinstance(supported, No) else _table(node, operands, recipe, "static")
    if not readable:
        return No("it is in the body of a Scan, where ranges are not calibrated")
    return _static(node, operands, recipe, support)


def _in_blocks(
    node: ir.Node, recipe: Recipe, support: WeightOnlySupport, *, readable: bool
) -> PlannedOp | No:
    """A product or a table with weights only in codes."""
    if is_experts(node):
        return _experts(node, recipe, support)
    operands = describe(node)
    if (stack := stacks.describe_stack(node)) is not None:
        operands = stack if support.stacks else stacks.why_whole(node, recipe, support)
    if isinstance(operands, No):
        return operands
    weights = _weights(node, operands, recipe)
    if needs_data(weights.algorithm) and not readable and operands.kind != TABLE:
        return No("it is in the body of a Scan, where data is not read: choose another algorithm")
    return _weight_only(node, operands, recipe, support, weights)


def _static(
    node: ir.Node, operands: Operands, recipe: Recipe, support: StaticSupport
) -> PlannedOp | No:
    supported = support.ops[operands.kind]
    if isinstance(supported, No):
        return supported
    if isinstance(support.light_convs, No) and node.op_type == "Conv" and is_light(node):
        return support.light_convs
    needs_output = support.quantize_outputs and node.op_type == "Conv"
    return PlannedOp(
        node=node.name or "",
        op_type=node.op_type,
        scheme="static",
        operands=operands,
        weight=QuantSpec(support.weights, PerAxis(operands.output_axis)),
        algorithm=_weights(node, operands, recipe).algorithm,
        activation=support.activations,
        output=_anchor(node.outputs[0]) if needs_output else None,
    )


def _dynamic(node: ir.Node, recipe: Recipe, support: DynamicSupport) -> PlannedOp | No:
    lowering = support.lowerings[node.op_type]
    operands = lowering if isinstance(lowering, No) else describe(node)
    if isinstance(operands, No):
        return operands
    if operands.kind == TABLE:
        return _table(node, operands, recipe, "dynamic")
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
        algorithm=_weights(node, operands, recipe).algorithm,
        activation=support.activations,
    )


def _table(node: ir.Node, operands: Operands, recipe: Recipe, scheme: Scheme) -> PlannedOp:
    """A table in 8 bits, with one scale per row."""
    return PlannedOp(
        node=node.name or "",
        op_type=node.op_type,
        scheme=scheme,
        operands=operands,
        weight=QuantSpec(_TABLE_FORMAT, PerAxis(operands.output_axis)),
        algorithm=_weights(node, operands, recipe).algorithm,
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
    node: ir.Node,
    operands: Operands,
    recipe: Recipe,
    support: WeightOnlySupport,
    weights: Weights,
) -> PlannedOp | No:
    assert operands.reduced_axis is not None
    assert operands.weight.const_value is not None
    reduced = operands.weight.const_value.shape.numpy()[operands.reduced_axis]
    is_table = operands.kind == TABLE
    if is_table and isinstance(support.table_lowering, No):
        return support.table_lowering
    if is_table:  # what becomes of a row in one block, or read by others, is no matter of fusion
        support = replace(
            support,
            single_blocks=True,
            shared_weights=True,
            bits=support.bits if support.table_bits is None else support.table_bits,
        )
    if not support.shared_weights and _products(operands.weight) > 1:
        return No("other nodes read its weight too, which the target then dequantizes in float")
    if is_table:  # whose codes and zero points are integers
        bits = BITS if weights.bits == CODEBOOK else weights.bits
        if isinstance(bits, int) and bits not in support.bits:
            bits = min((wider for wider in support.bits if wider > bits), default=BITS)
        weights = weights.model_copy(update={"float_zero_points": False, "bits": bits})
    dtype = _ACTIVATION_TYPES.get(recipe.activation_dtype or "", operands.weight.dtype)
    scale_dtype = _SCALE_TYPES.get(dtype or ir.DataType.FLOAT, "float32")
    found = choices(weights, reduced, operands.reduced_axis, scale_dtype, support)
    if isinstance(found, No):
        return found
    if is_table:
        found = [spec for spec in found if reduced * formats.get(spec.format).bits % 8 == 0]
    if not found:
        return No(f"its rows of {reduced} codes fill no whole bytes")
    return PlannedOp(
        node=node.name or "",
        op_type=node.op_type,
        scheme="weight-only",
        operands=operands,
        weight=found[0],
        algorithm=_WITHOUT_DATA
        if operands.kind in (TABLE, EXPERTS) and needs_data(weights.algorithm)
        else weights.algorithm,
        choices=tuple(found),
        accuracy_level=0 if is_table else weights.accuracy_level or 0,
    )


def _experts(node: ir.Node, recipe: Recipe, support: WeightOnlySupport) -> PlannedOp | No:
    if isinstance(support.experts, No):
        return support.experts
    operands = describe_experts(node)
    if isinstance(operands, No):
        return operands
    given = expert_weights(operands, recipe.weights_of(*names_of(node)))
    op = _weight_only(node, operands, recipe, support, given)
    if isinstance(op, No):
        return op
    refused = misfit(operands, op.weight, given)
    return op if refused is None else refused


def _weights(node: ir.Node, operands: Operands, recipe: Recipe) -> Weights:
    if operands.kind == TABLE:
        return recipe.weights_of(*names_of(node), role=recipe.tables)
    return recipe.weights_of(*names_of(node), role=recipe.head if is_head(node) else None)


def _products(weight: ir.Value) -> int:
    """How many ops read `weight` other than to look rows up."""
    return sum(node.op_type != "Gather" for node in readers(weight))
