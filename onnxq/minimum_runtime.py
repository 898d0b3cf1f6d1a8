"""The oldest ONNX Runtime that runs a model.

What each release brought was seen by running one small model of each kind in the CPU packages of
1.17 to 1.32: the first release that loads it, runs it and gives the numbers of the newest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxq.errors import RecipeError, TargetError
from onnxq.onnxruntime_ops import ATTRIBUTES, INPUTS, OLDEST, OPS, Version

# The first release of each version of ONNX's files and of its default operator set.
_IR_VERSIONS: Mapping[int, Version] = {
    10: (1, 18),
    11: (1, 23),
    12: (1, 24),
    13: (1, 24),
    14: (1, 32),
}
_OPSETS: Mapping[int, Version] = {
    21: (1, 18),
    22: (1, 21),
    23: (1, 23),
    24: (1, 24),
    25: (1, 24),
    26: (1, 25),
    27: (1, 32),
    28: (1, 32),
}
# The first release of each width of codes.
PRODUCTS: Mapping[int, Version] = {2: (1, 24), 4: OLDEST, 8: (1, 23)}
TABLES: Mapping[int, Version] = {2: (1, 27), 4: (1, 20), 8: (1, 23)}
TABLES_OF_BYTES: Version = (1, 23)
# The same where their zero points are floats.
FLOAT_ZERO_POINTS: Mapping[int, Version] = {2: (1, 27), 4: (1, 18)}
PRODUCT_BIAS: Version = INPUTS["MatMulNBits"][6]
_INTEGER_PRODUCTS_OF_8_BITS: Version = (1, 22)
_BLOCKS: Version = (1, 19)
_LOW_BITS = {ir.DataType.INT4: 4, ir.DataType.UINT4: 4, ir.DataType.INT2: 2, ir.DataType.UINT2: 2}


@dataclass(frozen=True)
class MinimumRuntime:
    """The oldest release of ONNX Runtime for the CPU that runs a model.

    Attributes:
        version: Major and minor.
        because: What came with that release, in words; empty for the oldest that was tried.
    """

    version: Version
    because: str = ""

    @property
    def release(self) -> str:
        """As it is written: "1.23"."""
        return ".".join(map(str, self.version))

    def to_json(self) -> dict[str, str]:
        """For reports."""
        return {"onnxruntime": self.release, "because": self.because}


def minimum_runtime(model: ir.Model) -> MinimumRuntime:
    """What runs `model`, as far as its file format, its opset and ops of ONNX Runtime's own say."""
    found = MinimumRuntime(OLDEST)
    for version, because in _needs(model):
        if version > found.version:
            found = MinimumRuntime(version, because)
    return found


def fit_runtime(model: ir.Model, version: Version) -> None:
    """Write the file format of `model` so that `version` reads it; nothing of it is newer.

    Raises:
        TargetError: The model has what came with a newer release.
    """
    # What a newer format adds, this model has not: readers only compare the number.
    known = (number for number, since in _IR_VERSIONS.items() if since <= version)
    model.ir_version = min(model.ir_version, max(known, default=min(_IR_VERSIONS) - 1))
    found = minimum_runtime(model)
    if found.version > version:
        raise TargetError(
            f"ONNX Runtime {MinimumRuntime(version).release} does not run the model: "
            f"{found.because} came with {found.release}.",
            f"Export the model without it, or ask for {found.release} or newer.",
        )


def parse_release(text: str) -> Version:
    """The version that "1.20" or "1.20.1" names.

    Raises:
        RecipeError: It names none, or one older than those that were tried.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", text.strip())
    if match is None:
        raise RecipeError(f"'{text}' is no release of ONNX Runtime.", "Give one such as 1.20.")
    version = int(match[1]), int(match[2])
    if version < OLDEST:
        raise RecipeError(
            f"What ONNX Runtime {text} runs is not known: the oldest that was tried is "
            f"{MinimumRuntime(OLDEST).release}.",
            f"Give {MinimumRuntime(OLDEST).release} or a newer one.",
        )
    return version


def _needs(model: ir.Model) -> Iterator[tuple[Version, str]]:
    yield _first(_IR_VERSIONS, model.ir_version), f"IR version {model.ir_version} of the file"
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    yield _first(_OPSETS, opset), f"opset {opset}"
    graphs: tuple[ir.Graph | ir.Function, ...] = (model.graph, *model.functions.values())
    for node in (node for graph in graphs for node in graph.all_nodes()):
        if node.op_type == "DequantizeLinear" and "block_size" in node.attributes:
            yield _BLOCKS, "DequantizeLinear with a block size"
        elif node.domain == "com.microsoft":
            yield from _needs_of(node)
            if (rule := _RULES.get(node.op_type)) is not None:
                yield rule(node)


def _needs_of(node: ir.Node) -> Iterator[tuple[Version, str]]:
    """What the schema of an op of ONNX Runtime's own says."""
    op = node.op_type
    yield OPS.get(op, OLDEST), op
    for attribute in node.attributes:
        yield ATTRIBUTES.get((op, attribute), OLDEST), f"{attribute} of {op}"
    count = max((i + 1 for i, value in enumerate(node.inputs) if value is not None), default=0)
    since = [version for least, version in INPUTS.get(op, {}).items() if least <= count]
    yield max(since, default=OLDEST), f"{count} inputs of {op}"


def _first(releases: Mapping[int, Version], number: int) -> Version:
    """The release that brought `number`; for one that is newer than all known, the last."""
    return max((since for known, since in releases.items() if known <= number), default=OLDEST)


def _product(node: ir.Node) -> tuple[Version, str]:
    bits = node.attributes.get_int("bits", 4)
    points = _input(node, 3)
    what, since = f"MatMulNBits of {bits} bits", PRODUCTS.get(bits, OLDEST)
    if bits == 8 and node.attributes.get_int("accuracy_level", 0) == 4:
        what, since = f"{what} at accuracy_level 4", _INTEGER_PRODUCTS_OF_8_BITS
    if points is not None and points.dtype != ir.DataType.UINT8:
        of_floats = FLOAT_ZERO_POINTS.get(bits, since)
        if of_floats > since:
            what, since = f"{what} with float zero points", of_floats
    return since, what


def _table(node: ir.Node) -> tuple[Version, str]:
    codes = _input(node, 0)
    bits = None if codes is None or codes.dtype is None else _LOW_BITS.get(codes.dtype)
    if bits is not None:
        return TABLES.get(bits, OLDEST), f"GatherBlockQuantized of {bits}-bit tensors"
    bits = node.attributes.get_int("bits", 4)
    since = max(TABLES.get(bits, OLDEST), TABLES_OF_BYTES)
    return since, f"GatherBlockQuantized with bits {bits} of bytes"


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


_RULES: Mapping[str, Callable[[ir.Node], tuple[Version, str]]] = {
    "MatMulNBits": _product,
    "GatherBlockQuantized": _table,
}
