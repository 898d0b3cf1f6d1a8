"""Which product is the head of a model: one whose result is nothing but outputs of the model."""

from __future__ import annotations

import onnx_ir as ir

# What may stand between the head and an output: types, shapes, a bias, a soft cap, probabilities.
_BEHIND = (
    *("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice"),
    *("Add", "Mul", "Div", "Tanh", "Softmax", "LogSoftmax", "Sigmoid"),
)


def is_head(node: ir.Node) -> bool:
    """Whether all that becomes of the product `node` is outputs of the model."""
    waiting = list(node.outputs)
    while waiting:
        value = waiting.pop()
        uses = [reader for reader, _ in value.uses()]
        if not uses and not value.is_graph_output():
            return False
        for reader in uses:
            if reader.op_type not in _BEHIND:
                return False
            waiting += reader.outputs
    return True
