"""Whether an engine runs in the precision that the model asks for, op by op.

The model says what is planned: a product whose operands come through DequantizeLinear, or a sum of
which one operand does, in codes that other ops read too. The engine says what happens. With
detailed profiling verbosity the builder lists its layers, each with its type, the data types of its
operands, and the ONNX nodes that it stands for (in one line):

    Name: ..., LayerType: gemm, Inputs: [ { ... Datatype: Int8 } ], Constants: [...],
    Outputs: [...], TacticName: ..., Metadata: [ONNX Layer: /head/MatMul]

An op runs in low precision if a layer that multiplies, made from that very node, takes its operand
in that type; for a sum, any layer that does is proof. A node that only dequantizing and float
layers mention is emulated. A node that no such layer mentions is unproven, which counts as a
failure too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxq.attestation import Attestation, OpAttestation, Verdict
from onnxq.engines.codes import code_type, dequantize_before

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ENGINE_TYPES = {
    ir.DataType.INT8: "Int8",
    ir.DataType.UINT8: "Int8",
    ir.DataType.INT4: "Int4",
    ir.DataType.FLOAT8E4M3FN: "FP8",
    ir.DataType.FLOAT4E2M1: "FP4",
}
_MULTIPLIES = ("correlation", "gemm", "fully_connected", "corrltn", "conv", "deconv", "mha", "fc")
_GENERATED = ("runtime_fusion", "kgen")
# The last is the product of a single row: factor by factor, and summed up.
_GENERATED_PRODUCT = re.compile(r"Fc|Mma|Gemm|Conv|MulSum")

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \[(?P<outputs>.*?)\], TacticName:"
    r".*?Metadata: (?P<metadata>.*)$"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*)\]")
_SEPARATOR = "\x1f"  # between the ONNX nodes of a layer


@dataclass(frozen=True)
class PlannedProduct:
    """A product, or a sum, that the model wants in low precision.

    Attributes:
        node: The node's name.
        op_type: Its op type.
        weight: The type of the weight codes as the engine names it ("Int8"); None if the second
            operand is no quantized weight.
        activation: The same for the first operand; of a sum, for the one that has codes.
    """

    node: str
    op_type: str
    weight: str | None
    activation: str | None

    @property
    def precision(self) -> str:
        """In words: "int8", or "int4 weights"."""
        if self.activation is None:
            return f"{(self.weight or '').lower()} weights"
        return self.activation.lower()


@dataclass(frozen=True)
class Layer:
    """A layer of an engine."""

    name: str
    type: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    nodes: frozenset[str]

    @property
    def multiplies(self) -> bool:
        """Whether it is a product, or a fusion that has one."""
        fused = self.type in _GENERATED and _GENERATED_PRODUCT.search(self.name)
        return bool(fused) or any(word in self.type.lower() for word in _MULTIPLIES)


def planned_products(model: ir.Model) -> list[PlannedProduct]:
    """The products and sums of `model` whose operands come through DequantizeLinear."""
    found = []
    for node in model.graph.all_nodes():
        if node.op_type == "Add" and (codes := _residual_codes(node)) is not None:
            found.append(PlannedProduct(node.name or "", node.op_type, None, codes))
        if node.op_type not in PRODUCTS or len(node.inputs) < 2:
            continue
        activation, weight = (_codes(value) for value in node.inputs[:2])
        if weight is not None:
            found.append(PlannedProduct(node.name or "", node.op_type, weight, activation))
    return found


def read_layers(log: Path) -> list[Layer]:
    """The layers that the builder listed in its log."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return list(_layers(lines))


def attest(planned: Iterable[PlannedProduct], layers: Iterable[Layer], by: str = "") -> Attestation:
    """Compare what is planned with what the engine does.

    Args:
        planned: What the model asks for.
        layers: Of the engine.
        by: What built the engine, with its version, in words.
    """
    by_node: dict[str, list[Layer]] = {}
    for layer in layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    ops = tuple(_verdict(op, by_node.get(op.node, [])) for op in planned)
    return Attestation(ops, by)


def _codes(value: ir.Value | None) -> str | None:
    """The engine's name for the type that `value` was dequantized from."""
    node = dequantize_before(value)
    dtype = code_type(node) if node is not None else None
    return _ENGINE_TYPES.get(dtype) if dtype is not None else None


def _residual_codes(node: ir.Node) -> str | None:
    """The type of the codes of one operand of a sum, and only one, that others read as well."""
    through = [
        value.producer()
        for value in node.inputs
        if value is not None and (value.producer() or node).op_type == "DequantizeLinear"
    ]
    if len(through) != 1 or through[0] is None:
        return None
    codes, dequantized = through[0].inputs[0], through[0].outputs[0]
    if codes is None or codes.producer() is None or len(codes.uses()) + len(dequantized.uses()) < 3:
        return None
    return _codes(dequantized)


def _layers(lines: Iterable[str]) -> Iterator[Layer]:
    for line in lines:
        match = _LAYER.match(line)
        if match is not None:
            yield Layer(
                match["name"],
                match["type"],
                tuple(_DATATYPE.findall(match["inputs"])),
                tuple(_DATATYPE.findall(match["constants"])),
                frozenset(_ONNX_LAYER.findall(match["metadata"].replace(_SEPARATOR, "\n"))),
            )


def _verdict(op: PlannedProduct, layers: list[Layer]) -> OpAttestation:
    products = [layer for layer in layers if op.op_type == "Add" or layer.multiplies]
    proof = next((layer for layer in products if _runs_as(op, layer)), None)
    if proof is not None:
        return _attested(op, op.precision, "proven", proof)
    if products:
        return _attested(op, "float", "float", products[0])
    if layers:
        return _attested(op, "unknown", "unproven", layers[0])
    return OpAttestation(
        op.node, op.op_type, op.precision, "unknown", "unproven", "no layer of the engine names it"
    )


def _runs_as(op: PlannedProduct, layer: Layer) -> bool:
    if op.op_type == "Add":
        return op.activation in layer.inputs
    if op.activation is None:
        # Weight-only: the product itself reads the codes and dequantizes them on the fly.
        return op.weight in layer.constants
    # A generated fusion casts codes to float before it multiplies; a library kernel does not.
    if layer.type in _GENERATED or layer.inputs[:1] != (op.activation,):
        return False
    others = (*layer.inputs[1:2], *layer.constants[:1])
    return op.weight in others


def _attested(op: PlannedProduct, actual: str, verdict: Verdict, layer: Layer) -> OpAttestation:
    types = f"{layer.type} ({', '.join(layer.inputs)}; constants {', '.join(layer.constants[:2])})"
    return OpAttestation(
        op.node, op.op_type, op.precision, actual, verdict, f"{layer.name}: {types}"
    )
