"""Make one op of what exporters write HardSwish as.

    HardSwish(x) = x clip(x + 3, 0, 6) / 6 = x HardSigmoid(x)        (alpha 1/6, beta 1/2)

ONNX Runtime fuses the one op into a float Conv before it; the four it computes one by one.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, all_graphs, constant, replace_output
from onnxq.passes.prepare.raise_opset import RaiseOpset

_OPSET = 14  # the first with HardSwish
_TYPES = (None, ir.DataType.FLOAT, ir.DataType.FLOAT16)


class FuseHardSwish(GraphPass):
    """Readers of the last of the ops read a HardSwish; the others are left unused."""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        if not _find(model):
            return 0
        RaiseOpset(_OPSET)(model)
        editor, found = Editor(model), _find(model)
        for node, x in found:
            old = node.outputs[0]
            swish = editor.node(
                "HardSwish", [x], name=f"{node.name}_HardSwish", before=node, dtype=old.dtype
            )
            replace_output(old, swish)
        return len(found)


def _find(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """The last ops of each HardSwish, with what it is computed from."""
    nodes = [node for graph in all_graphs(model) for node in graph]
    return [(n, x) for n in nodes if (x := _input(n)) is not None and x.dtype in _TYPES]


def _input(node: ir.Node) -> ir.Value | None:
    """What `node` gives the HardSwish of, if it does."""
    output = node.outputs[0]
    product, gate = _sixth(output), _clipped
    if product is None:
        product, gate = output, _hard_sigmoid
    multiply = _producer(product, "Mul")
    if multiply is None:
        return None
    a, b = multiply.inputs
    return next((x for x, other in ((a, b), (b, a)) if x is not None and gate(other) is x), None)


def _clipped(value: ir.Value | None) -> ir.Value | None:
    """The x of `value` = clip(x + 3, 0, 6)."""
    clip = _producer(value, "Clip")
    if clip is None or len(clip.inputs) < 3:
        return None
    is_relu6 = _is(clip.inputs[1], 0) and _is(clip.inputs[2], 6)
    return _other(_producer(clip.inputs[0], "Add"), 3) if is_relu6 else None


def _sixth(value: ir.Value | None) -> ir.Value | None:
    """The x of `value` = x / 6."""
    divide = _producer(value, "Div")
    if divide is not None:
        return divide.inputs[0] if _is(divide.inputs[1], 6) else None
    return _other(_producer(value, "Mul"), 1 / 6)


def _hard_sigmoid(value: ir.Value | None) -> ir.Value | None:
    """The x of `value` = clip(x + 3, 0, 6) / 6."""
    node = _producer(value, "HardSigmoid")
    if node is None:
        return _clipped(_sixth(value))
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    is_sixth = math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5
    return node.inputs[0] if is_sixth else None


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and not node.domain else None


def _other(node: ir.Node | None, number: float) -> ir.Value | None:
    """The operand of `node` beside `number`."""
    if node is None:
        return None
    a, b = node.inputs
    return a if _is(b, number) else b if _is(a, number) else None


def _is(value: ir.Value | None, number: float) -> bool:
    """Whether `value` is that constant, of too few dimensions to add one to what it meets."""
    tensor = constant(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 1:
        return False
    return math.isclose(float(tensor.numpy().item()), number, rel_tol=1e-5)
