"""Put the bodies of functions where they are called.

A function states the operator sets that its body is written for. One of another version than the
model's is the same wherever every op in it means the same in both.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import defs
from onnx_ir.passes import PassError, common

from onnxq.errors import ModelError
from onnxq.passes.base import GraphPass
from onnxq.passes.prepare.lower_opset import is_alike, is_same


class Inline(GraphPass):
    """Inline every function of the model."""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`.

        Raises:
            ModelError: A function needs another version of an operator set than the model has, or
                calls itself.
        """
        for function in model.functions.values():
            for domain, version in function.opset_imports.items():
                _agree(function, domain, version, model)
        try:
            return int(common.InlinePass()(model).modified)
        except (PassError, RecursionError, ValueError) as failure:
            raise ModelError(
                f"The functions of the model cannot be put where they are called: {failure}.",
                "Export it without functions of its own.",
            ) from failure


def _agree(function: ir.Function, domain: str, version: int, model: ir.Model) -> None:
    """Give a function the model's version of an operator set."""
    wanted = model.opset_imports.get(domain, version)
    if wanted == version:
        return
    for node in function.all_nodes():
        if node.domain == domain and not _means_the_same(node, version, wanted):
            raise ModelError(
                f"The function '{function.domain}::{function.name}' is written for version "
                f"{version} of the operator set '{domain or 'ai.onnx'}', the model for {wanted}, "
                f"and {node.op_type} is not the same in both.",
                "Export the model again, with functions of its own opset.",
            )
    function.opset_imports[domain] = wanted


def _means_the_same(node: ir.Node, version: int, wanted: int) -> bool:
    """Whether `node`, written for `version` of its operator set, is that op in `wanted` too."""
    if node.domain:
        return _definition(node, version) == _definition(node, wanted)
    if wanted > version:
        return is_alike(node.op_type, version, wanted)
    return is_same(node, wanted, version)


def _definition(node: ir.Node, version: int) -> int | None:
    """The version in which an op was defined as it is in `version` of its operator set."""
    try:
        return int(defs.get_schema(node.op_type, version, node.domain).since_version)
    except defs.SchemaError:
        return None
