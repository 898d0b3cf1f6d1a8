"""Tell symbolic dimensions apart that carry one name and cannot be equal.

Exporters write placeholders ("?", "-1", "None", "unk__7") where they know nothing. Equal names mean
equal sizes in ONNX, and TensorRT holds the model to it: an image of height 48 and width 320 whose
dimensions are both called "?" cannot be built.
"""

from __future__ import annotations

import re

import onnx_ir as ir

from onnxq.passes.base import GraphPass

# A real symbol is an identifier or an expression of identifiers and numbers.
_SYMBOL = re.compile(r"[^\d\W][\w.]*")
_PLACEHOLDER = re.compile(r"(none|null|unk(nown)?(_*\d+)?|dynamic|dim)", re.IGNORECASE)
# The ops whose input has a batch axis, a channel axis and spatial axes, all different things.
_SPATIAL = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize", "BatchNormalization")


class SeparateDims(GraphPass):
    """Rename, at the graph's inputs and outputs, dimensions that are equal only in name.

    A placeholder says nothing, so each of its occurrences gets its own name. A proper symbol on
    two axes of an image that feeds a convolution or pooling is a batch that is also a height: they
    are told apart too. Symbols inside the graph are dropped where one was renamed; they are
    inferred anew.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        renamed: set[str] = set()
        count = 0
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.shape is None:
                continue
            dims: list[int | str | None] = []
            for axis, dim in enumerate(value.shape):
                symbol = _symbol(dim)
                if isinstance(dim, int) and dim < 0:  # "unknown", said wrongly
                    dims.append(f"{value.name}_dim_{axis}")
                    count += 1
                elif symbol is not None and _cannot_be_equal(value, symbol, axis):
                    renamed.add(symbol)
                    count += 1
                    dims.append(f"{value.name}_dim_{axis}")
                else:
                    dims.append(dim if isinstance(dim, int) else symbol)
            value.shape = ir.Shape(dims)
        if renamed:
            _drop_inner(model, renamed)
        return count


def _cannot_be_equal(value: ir.Value, symbol: str, axis: int) -> bool:
    if not _SYMBOL.search(symbol) or _PLACEHOLDER.fullmatch(symbol):
        return True
    shape = value.shape
    assert shape is not None
    twin_axes = [i for i, d in enumerate(shape) if _symbol(d) == symbol]
    return (
        len(twin_axes) > 1
        and axis != twin_axes[0]
        and any(node.op_type in _SPATIAL for node, index in value.uses() if index == 0)
    )


def _drop_inner(model: ir.Model, symbols: set[str]) -> None:
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.shape is None or value.is_graph_output():
                continue
            dims = [None if _symbol(dim) in symbols else dim for dim in value.shape]
            value.shape = ir.Shape(dims)


def _symbol(dim: int | ir.SymbolicDim) -> str | None:
    return dim.value if isinstance(dim, ir.SymbolicDim) else None
