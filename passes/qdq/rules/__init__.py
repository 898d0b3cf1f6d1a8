"""What Q/DQ needs to know of an op, one file each. Rules see nodes, never numbers.

The name of a rule is the op type in lower case, and its module defines

    RULE(node: ir.Node) -> Operands | No
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq import registry
from onnxq.errors import RecipeError
from onnxq.passes.qdq.rules.base import Operands
from onnxq.targets import No

__all__ = ["Operands", "describe"]


def describe(node: ir.Node) -> Operands | No:
    """Where `node` has its activation, weight and bias, or why it cannot be quantized."""
    rule = registry.load("onnxq.passes.qdq.rules", node.op_type.lower(), "RULE", RecipeError)
    operands: Operands | No = rule(node)
    return operands
