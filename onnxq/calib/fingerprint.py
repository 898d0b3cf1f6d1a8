"""What makes two models the same for calibration: the same ops on the same values and weights.

The digest covers opset imports, graph inputs and outputs, nodes in order with their attributes and
value names, subgraphs and functions, and every weight's name, type, shape and bytes. It does not
depend on the order of the initializers, on where the weights are stored, on inferred shapes, node
names, doc strings or metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir


def fingerprint(model: ir.Model) -> str:
    """The digest of `model`, in hexadecimal; weights are read one at a time."""
    sink = _Sink()
    sink.add("opsets", sorted(model.opset_imports.items()))
    _add_graph(sink, model.graph)
    for identifier, function in sorted(model.functions.items()):
        sink.add("function", identifier, sorted(function.opset_imports.items()))
        sink.add("parameters", [value.name for value in function.inputs])
        _add_attributes(sink, function.attributes.values())
        _add_nodes(sink, function)
        sink.add("results", [value.name for value in function.outputs])
    return sink.digest.hexdigest()


class _Sink:
    """Takes lines of JSON, which tell where a field ends, and the raw bytes of tensors."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def add(self, *fields: Any) -> None:  # noqa: ANN401
        self.digest.update(json.dumps(fields).encode() + b"\n")

    def write(self, data: bytes | memoryview) -> int:
        """The part of a binary file that `tofile` of a tensor uses; torch writes 2-D buffers."""
        flat = np.frombuffer(data, np.uint8)
        self.digest.update(flat.data)
        return flat.nbytes


def _add_graph(sink: _Sink, graph: ir.Graph) -> None:
    sink.add("inputs", [_signature(value) for value in graph.inputs])
    for name in sorted(graph.initializers):
        sink.add("initializer", name)
        _add_tensor(sink, graph.initializers[name].const_value)
    _add_nodes(sink, graph)
    sink.add("outputs", [_signature(value) for value in graph.outputs])


def _add_nodes(sink: _Sink, nodes: Iterable[ir.Node]) -> None:
    for node in nodes:
        inputs = [None if value is None else value.name for value in node.inputs]
        outputs = [value.name for value in node.outputs]
        sink.add("node", node.domain, node.op_type, node.overload, inputs, outputs)
        _add_attributes(sink, node.attributes.values())


def _add_attributes(sink: _Sink, attributes: Iterable[ir.Attr]) -> None:
    for attribute in sorted(attributes, key=lambda attribute: attribute.name):
        sink.add("attribute", attribute.name, attribute.type.name, attribute.ref_attr_name)
        if attribute.type == ir.AttributeType.GRAPH:
            _add_graph(sink, attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                _add_graph(sink, graph)
        elif attribute.type == ir.AttributeType.TENSOR:
            _add_tensor(sink, attribute.as_tensor())
        elif attribute.type == ir.AttributeType.TENSORS:
            for tensor in attribute.as_tensors():
                _add_tensor(sink, tensor)
        else:
            sink.add(repr(attribute.value))


def _add_tensor(sink: _Sink, tensor: ir.TensorProtocol | None) -> None:
    if tensor is None:
        return
    sink.add("tensor", tensor.dtype.name, [int(dim) for dim in tensor.shape.numpy()], tensor.nbytes)
    if tensor.dtype == ir.DataType.STRING:
        sink.add([item.decode("latin-1") for item in tensor.numpy().flat])
    elif isinstance(tensor, ir.ExternalTensor | ir.Tensor | ir.LazyTensor | ir.PackedTensor):
        tensor.tofile(sink)  # in blocks, where the tensor is a file
    else:
        sink.write(tensor.tobytes())


def _signature(value: ir.Value) -> list[str | None]:
    return [value.name, str(value.type), str(value.shape)]
