"""Convs of so few products that what surrounds int8 costs more than it saves.

A runtime that fuses only Relu and Clip into an int8 Conv computes every other function in float:

    int8:   codes -> Conv -> codes -> DequantizeLinear -> function -> QuantizeLinear -> codes
    float:  x ----> Conv and function -> y

so each element of the output takes two passes more, which a depthwise Conv, or one of few inputs
beside it, does not win back. Where Convs hand codes on to each other, int8 does pay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import onnx_ir as ir

from onnxq.passes.edit import constant

_FEW = 64  # products for an element of the output
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def is_light(node: ir.Node) -> bool:
    """Whether a Conv is depthwise, or of few products and beside such Convs, between floats."""
    return _is_small(node) and not _hands_on_codes(node) and _is_near_depthwise(node)


def _is_small(node: ir.Node) -> bool:
    shape = _weight_shape(node)
    return bool(shape) and math.prod(shape[1:]) <= _FEW


def _is_near_depthwise(node: ir.Node) -> bool:
    """Whether `node` is depthwise, or leads to such a Conv by way of small ones."""
    found = {node}
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if _is_depthwise(each):
            return True
        near = {*_before(each), *_behind(each)} - found
        found |= near
        waiting += filter(_is_small, near)
    return False


def _is_depthwise(node: ir.Node) -> bool:
    shape = _weight_shape(node)
    return bool(shape) and shape[1] == 1 and node.attributes.get_int("group", 1) > 1


def _weight_shape(node: ir.Node) -> tuple[int, ...]:
    tensor = constant(node.inputs[1]) if node.op_type == "Conv" and not node.domain else None
    return () if tensor is None else tuple(tensor.shape.numpy())


def _hands_on_codes(node: ir.Node) -> bool:
    """Whether nothing but Convs in int8 reads the output, behind a Relu or Clip or not."""
    output = node.outputs[0]
    readers = [reader for reader, _ in output.uses()]
    if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        output = readers[0].outputs[0]
        readers = [reader for reader, _ in output.uses()]
    in_int8 = (_weight_shape(reader) and not is_light(reader) for reader in readers)
    return bool(readers) and not output.is_graph_output() and all(in_int8)


def _before(node: ir.Node) -> list[ir.Node]:
    """The products that the input of `node` is computed from, element by element."""
    return _products(node, lambda each: (v.producer() for v in each.inputs[:2] if v is not None))


def _behind(node: ir.Node) -> list[ir.Node]:
    """The products that read what becomes of the output of `node`, element by element."""
    return _products(node, lambda each: (reader for reader, _ in each.outputs[0].uses()))


def _products(
    node: ir.Node, following: Callable[[ir.Node], Iterable[ir.Node | None]]
) -> list[ir.Node]:
    found: dict[ir.Node, bool] = {node: False}
    waiting = [node]
    while waiting:
        for each in following(waiting.pop()):
            if each is not None and each not in found:
                found[each] = each.op_type in _PRODUCTS
                if not found[each]:
                    waiting.append(each)
    return [each for each, is_product in found.items() if is_product]
