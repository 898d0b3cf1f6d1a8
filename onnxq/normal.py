"""Models that runtimes run and `onnx_ir` does not take as they are, brought into the usual form.

Sparse weights become dense ones, as in ONNX Runtime; "ai.onnx" is the default domain; nodes come
behind those that they read. What no form can be found for is refused by name, before data is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx_ir as ir

from onnxq.errors import ModelError

_DENSE_LIMIT = 1 << 30  # bytes of a sparse weight that is made dense
_ALIAS = "ai.onnx"  # of the default domain, ""


def made_dense(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without sparse tensors: itself if it has none, else a copy.

    Raises:
        ModelError: A sparse tensor is not valid, or too large.
    """
    if not any(_sparse_places(proto)):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for owner in list(_sparse_places(copy)):
        if isinstance(owner, onnx.GraphProto):
            owner.initializer.extend(_dense(each) for each in owner.sparse_initializer)
            del owner.sparse_initializer[:]
        else:
            dense = _dense(owner.sparse_tensor)
            owner.Clear()
            owner.name, owner.type = "value", onnx.AttributeProto.TENSOR
            owner.t.CopyFrom(dense)
    return copy


def require_types(proto: onnx.ModelProto, name: str) -> None:
    """Check that inputs and outputs are tensors, or sequences or optionals of such.

    Raises:
        ModelError: One is not.
    """
    for kind, values in (("Input", proto.graph.input), ("Output", proto.graph.output)):
        for value in values:
            if not _is_of_tensors(value.type):
                raise ModelError(
                    f"{kind} '{value.name}' of '{name}' holds a map or a sparse tensor, which "
                    "onnxq cannot keep.",
                    "Export the model without it: the outputs of ZipMap are maps.",
                )


def set_in_order(model: ir.Model, name: str = "the model") -> None:
    """Give the default domain its usual name, and put every node behind those that it reads.

    Args:
        model: Edited in place. Nodes in order stay in it.
        name: Of the model, for errors.

    Raises:
        ModelError: A value is made by nothing, or by itself.
    """
    for owner in _owners(model):
        version = owner.opset_imports.pop(_ALIAS, None)
        if version is not None:
            owner.opset_imports.setdefault("", version)
        if not _is_in_order(owner, name):
            try:
                owner.sort()
            except ValueError as failure:
                raise ModelError(
                    f"The nodes of '{name}' are in a cycle: a value depends on itself.",
                    "Export it again.",
                ) from failure


def require_in_order(model: ir.Model) -> None:
    """Check that every node stands behind those that it reads, which a copy needs.

    Raises:
        ModelError: One does not.
    """
    for owner in _owners(model):
        if not _is_in_order(owner, "the model"):
            raise ModelError(
                "The nodes of the model are not in the order of what they read.",
                "Call model.graph.sort() first.",
            )


def _owners(model: ir.Model) -> list[ir.Graph | ir.Function]:
    """What holds nodes: the graph, and each function."""
    return [model.graph, *model.functions.values()]


def _is_in_order(owner: ir.Graph | ir.Function, name: str) -> bool:
    known: set[ir.Value] = set()
    in_order = True
    for node in _enter(owner, known):
        for value in node.inputs:
            if value is None or value in known:
                continue
            if value.producer() is None:
                raise ModelError(
                    f"Node '{node.name}' ({node.op_type}) of '{name}' reads '{value.name}', which "
                    "is no input, no weight, and computed by no node.",
                    "Export the model again.",
                )
            in_order = False
        known.update(node.outputs)
    return in_order


def _enter(graph: ir.Graph | ir.Function, known: set[ir.Value]) -> Iterator[ir.Node]:
    """The nodes of a graph, each before those inside it; inputs and weights become known."""
    known.update(graph.inputs)
    if isinstance(graph, ir.Graph):
        known.update(graph.initializers.values())
    for node in graph:
        yield node
        for inner in _graphs_in(node):
            yield from _enter(inner, known)


def _graphs_in(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _sparse_places(
    proto: onnx.ModelProto,
) -> Iterator[onnx.GraphProto | onnx.AttributeProto]:
    """The graphs with sparse initializers, and the attributes that are sparse tensors."""
    yield from _in_graph(proto.graph)
    for function in proto.functions:
        yield from _in_nodes(function.node)


def _in_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto | onnx.AttributeProto]:
    if graph.sparse_initializer:
        yield graph
    yield from _in_nodes(graph.node)


def _in_nodes(
    nodes: Iterable[onnx.NodeProto],
) -> Iterator[onnx.GraphProto | onnx.AttributeProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                yield attribute
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _in_graph(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for graph in attribute.graphs:
                    yield from _in_graph(graph)


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    name, dims = sparse.values.name, tuple(sparse.dims)
    what = f"The sparse weight '{name}' of shape {list(dims)}"
    if sparse.values.external_data or sparse.indices.external_data:
        raise ModelError(f"{what} is in a file of its own.", "Save it in the model, or dense.")
    try:
        values = onnx.numpy_helper.to_array(sparse.values)
        indices = onnx.numpy_helper.to_array(sparse.indices)
        size = math.prod(dims) * values.itemsize
        if not 0 <= size <= _DENSE_LIMIT:
            raise ModelError(
                f"{what} takes {size} bytes when it is dense; {_DENSE_LIMIT} are allowed.",
                "Export it as a dense weight.",
            )
        places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
        dense = np.zeros(dims, values.dtype)
        if places.size and places.min() < 0:
            raise ValueError("an index is negative")
        dense.reshape(-1)[places] = values
    except (ValueError, IndexError, TypeError) as failure:
        raise ModelError(f"{what} is not valid: {failure}.", "Export the model again.") from failure
    return onnx.numpy_helper.from_array(dense, name)


def _is_of_tensors(kind: onnx.TypeProto) -> bool:
    which = kind.WhichOneof("value")
    if which == "sequence_type":
        return _is_of_tensors(kind.sequence_type.elem_type)
    if which == "optional_type":
        return _is_of_tensors(kind.optional_type.elem_type)
    return which in (None, "tensor_type")
