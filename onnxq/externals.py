"""Tensors in files of their own, wherever they stand in a model.

Weights of the main graph stay what they are: converters hold them aside, and runtimes are told
their folder. No such way leads to a tensor in an attribute (a Constant, in a function too) or in
the graph of a branch: it becomes one that knows its file by its whole path, and is read from there
when it is asked for, whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import onnx
import onnx_ir as ir

from onnxq.weightfile import WeightInFile

_Put: TypeAlias = Callable[[ir.TensorProtocol], None]


class Place(NamedTuple):
    """A tensor in a model.

    Attributes:
        tensor: What is there.
        put: Puts another one there.
        is_weight: Whether it is an initializer of the main graph.
    """

    tensor: ir.TensorProtocol
    put: _Put
    is_weight: bool


def tensors(model: ir.Model) -> Iterator[Place]:
    """Every tensor of a model: of its graphs, its functions, and the attributes in them."""
    bodies = (graph for each in model.functions.values() for graph in each.subgraphs())
    for graph in (*model.graphs(), *bodies):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield Place(value.const_value, _of_value(value), graph is model.graph)
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        for node in owner.all_nodes():
            for attribute in list(node.attributes.values()):
                for tensor, put in _of_attribute(node, attribute):
                    yield Place(tensor, put, is_weight=False)


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Those in files."""
    return (each.tensor for each in tensors(model) if isinstance(each.tensor, ir.ExternalTensor))


def read_when_asked(model: ir.Model, *, weights_below: int = 0) -> None:
    """Let tensors in files that are no weights of the main graph be read from there on demand.

    Args:
        model: Edited in place.
        weights_below: Weights of fewer bytes become such tensors too.
    """
    for tensor, put, is_weight in list(tensors(model)):
        if isinstance(tensor, ir.ExternalTensor) and not (
            is_weight and tensor.nbytes >= weights_below
        ):
            put(_in_file(tensor))


def _in_file(tensor: ir.ExternalTensor) -> WeightInFile:
    proto = onnx.TensorProto(
        name=tensor.name, data_type=int(tensor.dtype), dims=tensor.shape.numpy()
    )
    return WeightInFile(Path(tensor.path), tensor.offset or 0, proto)


def _of_value(value: ir.Value) -> _Put:
    def put(tensor: ir.TensorProtocol) -> None:
        value.const_value = tensor

    return put


def _of_attribute(node: ir.Node, attribute: ir.Attr) -> Iterator[tuple[ir.TensorProtocol, _Put]]:
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.TENSOR:
        yield attribute.as_tensor(), _one(node, attribute.name)
    elif attribute.type == ir.AttributeType.TENSORS:
        for index, tensor in enumerate(attribute.as_tensors()):
            yield tensor, _one_of(node, attribute.name, index)


def _one(node: ir.Node, name: str) -> _Put:
    def put(tensor: ir.TensorProtocol) -> None:
        node.attributes[name] = ir.AttrTensor(name, tensor)

    return put


def _one_of(node: ir.Node, name: str, index: int) -> _Put:
    def put(tensor: ir.TensorProtocol) -> None:
        given = list(node.attributes[name].as_tensors())
        given[index] = tensor
        node.attributes[name] = ir.AttrTensors(name, given)

    return put
