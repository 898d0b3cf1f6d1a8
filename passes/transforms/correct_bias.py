"""Take from each output channel of a quantized op what rounding adds to it on average.

    b'_c = b_c - E[op'(x)_c - op(x)_c]

Rounded weights shift the mean of a channel, and the shift reaches every element behind it.
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
arXiv:1906.04721, section 4.2, with the expectation taken over data.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, constant_array, graph_of
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.types import Array


class CorrectBias(GraphPass):
    """Subtract shifts from the biases of planned ops, before they are quantized.

    A Conv, ConvTranspose or Gemm without a bias gets one. A MatMul is corrected in the constant
    that is added to its product; without one it stays as it is.

    Args:
        plan: The plan of this very model.
        shifts: What to subtract, float [output channels], by the op's name.
    """

    def __init__(self, plan: QuantPlan, shifts: Mapping[str, Array]) -> None:
        super().__init__()
        self._plan = plan
        self._shifts = shifts

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor = Editor(model)
        ops = [op for op in self._plan.ops if op.node in self._shifts]
        return sum(
            _correct(editor, self._plan.graph_nodes[op.node], op, self._shifts[op.node])
            for op in ops
        )


def can_correct(plan: QuantPlan, op: PlannedOp) -> bool:
    """Whether there is a bias to change, or room for one."""
    return _place(plan.graph_nodes[op.node], op) is not None


def _correct(editor: Editor, node: ir.Node, op: PlannedOp, shift: Array) -> bool:
    place = _place(node, op)
    if place is None:
        return False
    reader, index = place
    dtype = op.operands.weight.dtype or ir.DataType.FLOAT
    bias = constant_array(reader.inputs[index]) if index < len(reader.inputs) else None
    before = np.zeros(shift.shape) if bias is None else bias.astype(np.float64)
    corrected = (before - shift).astype(dtype.numpy())
    value = editor.initializer(graph_of(node), f"{node.name}_bias_corrected", corrected)
    if index >= len(reader.inputs):
        reader.resize_inputs(index + 1)
    reader.replace_input_with(index, value)
    return True


def _place(node: ir.Node, op: PlannedOp) -> tuple[ir.Node, int] | None:
    """The node and the index of the input that adds to each output channel of an op."""
    weight = op.operands.weight.const_value
    assert weight is not None
    if op.operands.bias_index is None:
        return _addend(node, weight.shape.numpy()[op.operands.output_axis])
    index = op.operands.bias_index
    bias = node.inputs[index] if index < len(node.inputs) else None
    if bias is None:
        return node, index
    array = constant_array(bias)
    return None if array is None or array.ndim != 1 or array.size == 1 else (node, index)


def _addend(node: ir.Node, channels: int) -> tuple[ir.Node, int] | None:
    """The Add of a constant per channel that alone reads the product."""
    output = node.outputs[0]
    uses = output.uses()
    if len(uses) != 1 or output.is_graph_output():
        return None
    follower, index = next(iter(uses))
    if follower.op_type != "Add" or follower.graph is not node.graph:
        return None
    array = constant_array(follower.inputs[1 - index])
    return (follower, 1 - index) if array is not None and array.shape == (channels,) else None
