"""Lower an opset that is newer than what runtimes have Q/DQ ops of, where nothing changes by it.

An op of a newer opset is the same in an older one if it has the same parameters there, and takes
the attributes and types that it is given: what changed is that it takes more.
"""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir
from onnx import defs

from onnxq.errors import ModelError
from onnxq.passes.base import GraphPass

_NEWEST = 27  # ONNX Runtime 1.32 has no QuantizeLinear and DequantizeLinear of opset 28
# The same parameters, and another meaning.
_REDEFINED = ("GroupNormalization", "RoiAlign")
_GOAL = 23  # of what is lowered: known to every ONNX Runtime from 1.22 on


class LowerOpset(GraphPass):
    """Convert a model of an opset beyond 27 to 23, or the next to it that its ops allow.

    Args:
        least: The lowest opset that will do.
        required: Whether the model must not stay as new as it is.
    """

    def __init__(self, least: int, *, required: bool) -> None:
        super().__init__()
        self._goal = max(least, _GOAL)
        self._required = required

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`.

        Raises:
            ModelError: The opset is unknown, or has to be lowered and cannot be.
        """
        found = model.opset_imports.get("", 0)
        if found <= _NEWEST:
            return 0
        if found > defs.onnx_opset_version():
            raise ModelError(
                f"The model has opset {found}; onnx {onnx.__version__} knows opsets up to "
                f"{defs.onnx_opset_version()}.",
                f"Export it again with opset {_NEWEST} or older.",
            )
        nodes = [node for node in model.graph.all_nodes() if not node.domain]
        least = self._goal
        for node in nodes:
            version = next((v for v in range(least, found + 1) if is_same(node, v, found)), found)
            if version > _NEWEST:
                if self._required:
                    raise ModelError(
                        f"The model has opset {found}, and '{node.name}' ({node.op_type}) needs "
                        "it; ONNX Runtime has no QuantizeLinear of that opset.",
                        f"Export it again with opset {_NEWEST} or older.",
                    )
                return 0
            least = version
        model.opset_imports[""] = least
        model.ir_version = min(model.ir_version, least_ir_version(least))
        return 1


def least_ir_version(opset: int) -> int:
    """The version of ONNX's format that came with an opset."""
    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))


def is_same(node: ir.Node, version: int, newest: int) -> bool:
    """Whether `node`, of the opset `newest`, is the same op in the opset `version`."""
    if not is_alike(node.op_type, version, newest):
        return False
    schema = defs.get_schema(node.op_type, version, "")
    if not node.attributes.keys() <= schema.attributes.keys():
        return False
    for values, parameters in (
        (node.inputs, list(schema.inputs)),
        (node.outputs, list(schema.outputs)),
    ):
        for index, value in enumerate(values):
            takes = parameters[min(index, len(parameters) - 1)].types
            dtype = _tensor_dtype(value)
            if dtype is not None and f"tensor({dtype.name.lower()})" not in takes:
                return False
    return True


def _tensor_dtype(value: ir.Value | None) -> ir.DataType | None:
    kind = None if value is None else value.type
    return kind.dtype if isinstance(kind, ir.TensorType) else None


@functools.cache
def is_alike(op_type: str, version: int, newest: int) -> bool:
    """Whether an op has the same parameters in two opsets, and lost no attribute in the newer."""
    try:
        old, new = (defs.get_schema(op_type, v, "") for v in (version, newest))
    except defs.SchemaError:
        return False
    if op_type in _REDEFINED and old.since_version != new.since_version:
        return False
    same = _parameters(old) == _parameters(new)
    return same and _attributes(old).items() <= _attributes(new).items()


def _parameters(schema: defs.OpSchema) -> list[tuple[str, str]]:
    return [(each.name, str(each.option)) for each in (*schema.inputs, *schema.outputs)]


def _attributes(schema: defs.OpSchema) -> dict[str, tuple[str, bool, str]]:
    return {
        name: (str(attribute.type), attribute.required, str(attribute.default_value))
        for name, attribute in schema.attributes.items()
    }
