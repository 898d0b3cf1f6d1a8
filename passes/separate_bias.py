"""MatMulNBits with a bias becomes MatMulNBits and Add, for releases that know no such bias."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, all_graphs, replace_output

_BIAS = 5  # its input


class SeparateBias(GraphPass):
    """Add the bias of every MatMulNBits in a node of its own."""

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        editor = Editor(model)
        found = [
            node
            for graph in all_graphs(model)
            for node in graph
            if node.op_type == "MatMulNBits" and len(node.inputs) > _BIAS and node.inputs[_BIAS]
        ]
        for node in found:
            _separate(editor, node)
        return len(found)


def _separate(editor: Editor, node: ir.Node) -> None:
    bias, product = node.inputs[_BIAS], node.outputs[0]
    total = editor.node(
        "Add", [bias, bias], name=f"{node.name}_bias", after=node, dtype=product.dtype
    )
    replace_output(product, total)
    product.name = editor.names.new(f"{node.name}_output")
    adder = total.producer()
    assert adder is not None
    adder.replace_input_with(0, product)
    node.replace_input_with(_BIAS, None)
    node.resize_inputs(next(i for i in range(_BIAS, 0, -1) if node.inputs[i - 1] is not None))
