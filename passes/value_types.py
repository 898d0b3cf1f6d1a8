"""The element types of values, where shape inference left them open: behind ops it does not know.

A schema binds the types of inputs and outputs by variables: an output has the type of any input
with the same variable, or the only type that it may have.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import defs

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_STATISTICS = (1, 2)  # outputs of norms that are in float32 whatever the others are
_SCALES = 2  # the input of GatherBlockQuantized whose type is that of the output


def infer_types(model: ir.Model) -> None:
    """Give each value of the main graph without a type the one that its op has to give it."""
    for node in model.graph:
        for index, output in enumerate(node.outputs):
            dtype = _dtype(node, index, model) if output.dtype is None else None
            if dtype is not None:
                output.type = ir.TensorType(dtype)


def schema(node: ir.Node, model: ir.Model) -> defs.OpSchema | None:
    """What onnx says of the op; None for an op of another domain, or an unknown one."""
    version = model.opset_imports.get("")
    if node.domain or version is None or not defs.has(node.op_type):
        return None
    return defs.get_schema(node.op_type, version, "")


def formal(
    parameters: list[defs.OpSchema.FormalParameter], index: int
) -> defs.OpSchema.FormalParameter:
    """The parameter of an input or output, of which the last may stand for many."""
    return parameters[min(index, len(parameters) - 1)]


def is_fixed(parameter: defs.OpSchema.FormalParameter) -> bool:
    """Whether it has one type, whatever those of the other parameters are."""
    return parameter.type_str.startswith("tensor(")


def float_inputs(node: ir.Node) -> list[int]:
    """The indices of the inputs that are floats."""
    return [i for i, v in enumerate(node.inputs) if v is not None and is_float(v)]


def is_float(value: ir.Value) -> bool:
    """Whether it is a tensor of floats, not a sequence of such."""
    is_other = isinstance(value.type, (ir.SequenceType, ir.OptionalType))
    return value.dtype in FLOATS and not is_other


def is_statistic(node: ir.Node, index: int) -> bool:
    """Whether an output is a mean or deviation of a norm, in float32 whatever the norm computes."""
    return index in _STATISTICS and node.op_type.endswith("Normalization")


def _dtype(node: ir.Node, index: int, model: ir.Model) -> ir.DataType | None:
    if is_statistic(node, index):
        return ir.DataType.FLOAT
    known = schema(node, model)
    if node.op_type in ("Cast", "ConstantOfShape") or known is None:
        return _of_other_op(node)
    output = formal(list(known.outputs), index)
    for place, value in enumerate(node.inputs):
        same = formal(list(known.inputs), place).type_str == output.type_str
        if same and value is not None and value.dtype is not None:
            return value.dtype
    (only,) = output.types if len(output.types) == 1 else (None,)
    return None if only is None else _NAMED.get(only)


def _of_other_op(node: ir.Node) -> ir.DataType | None:
    if node.op_type == "Cast":
        return ir.DataType(node.attributes.get_int("to", 0))
    if node.op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        return ir.DataType.FLOAT if value is None else value.as_tensor().dtype
    # The ops of ONNX Runtime have the type of their first input, but for codes.
    at = _SCALES if node.op_type == "GatherBlockQuantized" else 0
    first = node.inputs[at] if len(node.inputs) > at else None
    return None if first is None else first.dtype


_NAMED = {
    f"tensor({name})": dtype
    for name, dtype in {
        "float": ir.DataType.FLOAT,
        "float16": ir.DataType.FLOAT16,
        "bfloat16": ir.DataType.BFLOAT16,
        "int64": ir.DataType.INT64,
        "int32": ir.DataType.INT32,
        "bool": ir.DataType.BOOL,
    }.items()
}
