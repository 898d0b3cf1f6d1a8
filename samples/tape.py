"""Writing an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Attribute: TypeAlias = int | float | str | list[int]


class Tape:
    """The nodes and constants of a graph that is being written."""

    def __init__(self) -> None:
        self._nodes: list[ir.Node] = []
        self._constants: dict[str, ir.Value] = {}

    def op(
        self,
        op: str,
        *inputs: ir.Value | None,
        name: str | None = None,
        domain: str = "",
        outputs: int = 1,
        **attributes: Attribute,
    ) -> ir.Value:
        """The first output of a new node."""
        node = ir.node(
            op,
            inputs,
            attributes=attributes,
            domain=domain,
            num_outputs=outputs,
            name=name or f"{op}_{len(self._nodes)}",
        )
        for index, output in enumerate(node.outputs):
            output.name = f"{node.name}_output" + (f"_{index}" if index else "")
        self._nodes.append(node)
        return node.outputs[0]

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """The initializer of this name, made when first asked for."""
        if name not in self._constants:
            tensor = ir.Tensor(array, name=name)
            self._constants[name] = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        return self._constants[name]

    def integers(self, name: str, numbers: list[int]) -> ir.Value:
        """An initializer of 64-bit integers."""
        return self.constant(name, np.array(numbers, np.int64))

    def model(
        self,
        inputs: Sequence[ir.Value],
        outputs: Sequence[ir.Value],
        *,
        name: str,
        opsets: dict[str, int],
        ir_version: int,
    ) -> ir.Model:
        """The model of all that was written."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._nodes,
            initializers=list(self._constants.values()),
            opset_imports=opsets,
            name=name,
        )
        return ir.Model(graph, ir_version=ir_version)


def tensor(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    """A graph input."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def named(value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    """`value` as a graph output."""
    value.name, value.dtype, value.shape = name, dtype, ir.Shape(shape)
    return value
