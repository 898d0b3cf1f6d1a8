"""Let activations have another float type: float16 or bfloat16 instead of float32, or the reverse.

    y = Op(x, w)   ->   y16 = Op(x16, w16)

for all nodes but those of `onnxq.passes.wide`, whose inputs and outputs are cast. Inputs and
outputs of the model keep their types, but for KV caches: they get the new one, as they grow with
the text, and are handed from run to run. Weights are cast when they are written.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.passes.base import GraphPass
from onnxq.passes.casts import CastTensor
from onnxq.passes.edit import Editor, constant
from onnxq.passes.value_types import (
    FLOATS,
    float_inputs,
    formal,
    infer_types,
    is_fixed,
    is_float,
    is_statistic,
    schema,
)
from onnxq.passes.wide import wide_nodes

_WIDE = ir.DataType.FLOAT
_PAST = {"GroupQueryAttention": (3, 4), "MultiHeadAttention": (6, 7), "Attention": (4, 5)}


class SetActivationType(GraphPass):
    """Make `dtype` the type of activations.

    Needs unique names. Leaves in float32 what has to be; see `kept`.

    Args:
        dtype: float32, float16 or bfloat16.
        products: The names of nodes whose activations have this type whatever they read.
        wide_attention: As for `onnxq.passes.wide.wide_nodes`.

    Attributes:
        kept: The nodes that compute in float32 although `dtype` is narrower, each with its reason.
    """

    def __init__(
        self, dtype: ir.DataType, products: AbstractSet[str], wide_attention: str = ""
    ) -> None:
        super().__init__()
        self.kept: dict[str, str] = {}
        self._dtype = dtype
        self._products = products
        self._wide_attention = wide_attention

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`.

        Raises:
            ModelError: A node has a body, or a node of `products` reads what does not fit.
        """
        infer_types(model)
        _require_flat(model)
        wide: dict[ir.Node, str] = {}
        if self._dtype != _WIDE:
            wide = wide_nodes(model, self._dtype, self._products, self._wide_attention)
            self.kept = {node.name or "": reason for node, reason in wide.items()}
        return _Conversion(model, self._dtype, wide).run()


def _require_flat(model: ir.Model) -> None:
    for node in model.graph:
        for attribute in node.attributes.values():
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                raise ModelError(
                    f"'{node.name}' ({node.op_type}) has a body, in which the type of "
                    "activations is not changed.",
                    "Leave out what asks for another type of activations.",
                )


class _Conversion:
    """Of one model.

    Args:
        model: With the types of its values known.
        dtype: Of activations.
        wide: The nodes that stay in float32.
    """

    def __init__(self, model: ir.Model, dtype: ir.DataType, wide: dict[ir.Node, str]) -> None:
        self._graph = model.graph
        self._model = model
        self._dtype = dtype
        self._wide = wide
        self._editor = Editor(model)
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._edits = 0

    def run(self) -> int:
        """The number of edits."""
        caches = _caches(self._graph)
        outputs = [(v, self._dtype if v in caches else v.dtype) for v in self._graph.outputs]
        for value in self._graph.inputs:
            if value in caches:
                self._retype(value, self._dtype)
        nodes = list(self._graph)
        wanted = [self._wanted(node) for node in nodes]
        self._convert_constants(nodes, wanted)
        for node, inputs in zip(nodes, wanted, strict=True):
            for index, dtype in inputs.items():
                self._feed(node, index, dtype)
            for index, output in enumerate(node.outputs):
                # A Cast to the type of an output of the model is there for that.
                as_given = node.op_type == "Cast" and output.is_graph_output()
                if is_float(output) and not as_given:
                    self._retype(output, self._output_dtype(node, index))
            self._set_attributes(node)
        restored: dict[ir.Value, ir.Value] = {}
        for index, (value, given) in enumerate(outputs):
            if given is not None and is_float(value) and value.dtype != given:
                if value not in restored:
                    restored[value] = self._restored(value, given)
                self._graph.outputs[index] = restored[value]
        return self._edits

    def _wanted(self, node: ir.Node) -> dict[int, ir.DataType]:
        """The type that each float input of a node has to have."""
        if node.op_type == "Cast":
            return {}
        known = schema(node, self._model)
        parameters = [] if known is None else list(known.inputs)
        return {
            index: _WIDE if parameters and is_fixed(formal(parameters, index)) else self._own(node)
            for index in float_inputs(node)
        }

    def _output_dtype(self, node: ir.Node, index: int) -> ir.DataType:
        if is_statistic(node, index):
            return _WIDE
        known = schema(node, self._model)
        fixed = known is not None and is_fixed(formal(list(known.outputs), index))
        return _WIDE if fixed else self._own(node)

    def _own(self, node: ir.Node) -> ir.DataType:
        return _WIDE if node in self._wide else self._dtype

    def _convert_constants(
        self, nodes: list[ir.Node], wanted: list[dict[int, ir.DataType]]
    ) -> None:
        """Give each type that a constant is read in a constant of its own."""
        uses: dict[ir.Value, dict[ir.DataType, list[tuple[ir.Node, int]]]] = {}
        for node, inputs in zip(nodes, wanted, strict=True):
            for index, dtype in inputs.items():
                value = node.inputs[index]
                if value is not None and constant(value) is not None:
                    uses.setdefault(value, {}).setdefault(dtype, []).append((node, index))
        for value, by_dtype in uses.items():
            tensor = constant(value)
            assert tensor is not None
            # The plan knows the weights of products, which read activations of the new type.
            own = self._dtype if self._dtype in by_dtype else next(iter(by_dtype))
            for dtype, places in by_dtype.items():
                if dtype == own:
                    continue
                name = f"{value.name}_{dtype.name.lower()}"
                twin = self._editor.initializer(self._graph, name, _cast(tensor, dtype))
                for node, index in places:
                    node.replace_input_with(index, twin)
                self._edits += 1
            if tensor.dtype != own:
                value.const_value = _cast(tensor, own)
                self._retype(value, own)

    def _feed(self, node: ir.Node, index: int, dtype: ir.DataType) -> None:
        value = node.inputs[index]
        if value is not None and value.dtype != dtype:
            node.replace_input_with(index, self._cast_of(value, dtype))

    def _cast_of(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` in another type, cast where it is made."""
        if (value, dtype) not in self._made:
            producer = value.producer()
            self._made[value, dtype] = self._editor.node(
                "Cast",
                [value],
                name=f"{value.name}_to_{dtype.name.lower()}",
                after=producer,
                graph=None if producer is not None else self._graph,
                attributes={"to": int(dtype)},
                dtype=dtype,
                shape=value.shape,
            )
            self._edits += 1
        return self._made[value, dtype]

    def _set_attributes(self, node: ir.Node) -> None:
        """Let a node that says what type it makes say the new one."""
        dtype = node.outputs[0].dtype
        if dtype is None or dtype not in FLOATS:
            return
        if node.op_type == "ConstantOfShape" and "value" in node.attributes:
            value = node.attributes["value"].as_tensor()
            node.attributes["value"] = ir.AttrTensor(
                "value", ir.Tensor(_cast(value, dtype).numpy())
            )
        name = "to" if node.op_type == "Cast" else "dtype"
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64(name, int(dtype))

    def _restored(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """An output of the model in its type, under its name."""
        name = value.name
        value.name = self._editor.names.new(f"{name}_{self._dtype.name.lower()}")
        cast = self._cast_of(value, dtype)
        cast.name = name
        return cast

    def _retype(self, value: ir.Value, dtype: ir.DataType) -> None:
        if value.dtype != dtype:
            value.type = ir.TensorType(dtype)  # a clone of the model shares the old one
            self._edits += 1


def _cast(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    return tensor if tensor.dtype == dtype else CastTensor(tensor, dtype)


def _caches(graph: ir.Graph) -> set[ir.Value]:
    """The inputs that hold keys and values of the past, and the outputs that go on from them."""
    found: set[ir.Value] = set()
    for value in graph.inputs:
        for node, index in value.uses():
            rank = None if value.shape is None else len(value.shape)
            joins = node.op_type == "Concat" and (index, rank) == (0, 4)  # [batch, heads, ...]
            goes_on = joins or index in _PAST.get(node.op_type, ())
            present = [output for output in node.outputs if output.is_graph_output()]
            if goes_on and present and value.dtype in FLOATS:
                found.update([value, *present])
    return found
