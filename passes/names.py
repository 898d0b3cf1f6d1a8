"""What a user may call a node: by its own name, or by that of a weight.

Exporters number nodes, and name weights as the model's author did.
"""

from __future__ import annotations

import onnx_ir as ir


def names_of(node: ir.Node) -> tuple[str, ...]:
    """The name of `node`, and those of the initializers that it reads, transposed or not."""
    read = (_source(value) for value in node.inputs if value is not None)
    return (node.name or "", *(v.name for v in read if v.is_initializer() and v.name))


def _source(value: ir.Value) -> ir.Value:
    producer = value.producer()
    if producer is None or producer.op_type != "Transpose" or producer.inputs[0] is None:
        return value
    return producer.inputs[0]
