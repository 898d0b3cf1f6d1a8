"""Put the Q/DQ nodes of a plan into the graph.

    activation -> QuantizeLinear -> DequantizeLinear -> op
    quantized weight -------------> DequantizeLinear -> op
    int32 bias -------------------> DequantizeLinear -> op       (targets that ask for it)
    op [-> Relu] -> QuantizeLinear -> DequantizeLinear -> ...    (targets that ask for it)
    residual -> the QuantizeLinear and DequantizeLinear of the op beside it -> Add      (likewise)
    quantized table ------------> DequantizeLinear -> Gather     (or see `onnxq.passes.gather_rows`)

A value is quantized once for each spec; a weight is stored once for each spec, and each op gets a
DequantizeLinear of its own, which is what fusions look for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes.base import GraphPass
from onnxq.passes.edit import Editor, constant_array, graph_of, rewire
from onnxq.passes.gather_rows import gather_rows
from onnxq.passes.plan import PlannedOp, QuantPlan
from onnxq.passes.qdq.store import IntegerBias, Stored, store
from onnxq.passes.residuals import Residual
from onnxq.types import QParams, QuantSpec

ActivationParams = Callable[[str, QuantSpec], QParams]


class InsertQdq(GraphPass):
    """Quantize the static ops of a plan.

    Args:
        plan: The plan of this very model.
        params: Gives the calibrated scale and zero point of a value by its name.
    """

    def __init__(self, plan: QuantPlan, params: ActivationParams) -> None:
        super().__init__()
        self._plan = plan
        self._params = params

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        insertion = _Insertion(model, self._plan, self._params)
        ops = [op for op in self._plan.ops if op.scheme == "static"]
        for op in sorted(ops, key=lambda op: op.is_table):  # tables read what heads have stored
            insertion.quantize(op)
        for residual in self._plan.residuals:
            insertion.join(residual)
        return len(ops)


class _Insertion:
    def __init__(self, model: ir.Model, plan: QuantPlan, params: ActivationParams) -> None:
        self._editor = Editor(model)
        self._plan = plan
        self._params = params
        self._support = plan.target.static(plan.recipe.preset)
        self._activations: dict[tuple[ir.Value, QuantSpec], ir.Value] = {}
        self._originals: dict[ir.Value, ir.Value] = {}
        self._stored: dict[object, Stored] = {}
        self._zeros: dict[ir.Value, ir.Value] = {}
        self._tied: dict[tuple[ir.Graph, ir.Value], Stored] = {}

    def quantize(self, op: PlannedOp) -> None:
        node = self._plan.graph_nodes[op.node]
        operands = op.operands
        weight_dtype = operands.weight.dtype or ir.DataType.FLOAT
        if op.activation is None:
            self._table(op, node, weight_dtype)
            return
        source = node.inputs[operands.activation]
        assert source is not None
        dequantized = self._activation(source, op.activation, weight_dtype)
        self._constants(op, node, weight_dtype)
        node.replace_input_with(operands.activation, dequantized)
        if self._support.bias_rows:
            self._bias_row(node)
        if op.output is not None:
            self._output(op.output, op.activation, weight_dtype)

    def join(self, residual: Residual) -> None:
        """Let a sum, and no other reader, read the codes of its residual operand."""
        node = self._plan.graph_nodes[residual.node]
        value = node.inputs[residual.index]
        assert value is not None
        dtype = value.dtype or ir.DataType.FLOAT
        dequantized = self._activation(value, residual.activation, dtype)
        node.replace_input_with(residual.index, dequantized)

    def _activation(self, value: ir.Value, spec: QuantSpec, dtype: ir.DataType) -> ir.Value:
        # Where the op before had its output quantized, `value` is what was dequantized from it.
        key = (self._originals.get(value, value), spec)
        if key not in self._activations:
            self._activations[key] = self._quantize_dequantize(*key, dtype)
            self._originals[self._activations[key]] = key[0]
        return self._activations[key]

    def _output(self, value: ir.Value, spec: QuantSpec, dtype: ir.DataType) -> None:
        """Let every reader of `value` read it quantized; graph outputs stay as they are."""
        dequantized = self._activation(value, spec, dtype)
        uses = [(node, i) for node, i in value.uses() if node.op_type != "QuantizeLinear"]
        rewire(uses, dequantized)

    def _quantize_dequantize(
        self, value: ir.Value, spec: QuantSpec, dtype: ir.DataType
    ) -> ir.Value:
        assert value.name is not None
        params = self._params(value.name, spec)
        producer, graph = value.producer(), value.graph
        assert isinstance(graph, ir.Graph)
        number_format = formats.get(spec.format)
        scale = self._editor.initializer(
            graph, f"{value.name}_scale", np.asarray(params.scale, dtype.numpy())
        )
        zero_point = self._editor.initializer(
            graph, f"{value.name}_zero_point", number_format.tensor(params.zero_point)
        )
        codes = self._editor.node(
            "QuantizeLinear",
            [value, scale, zero_point],
            name=f"{value.name}_QuantizeLinear",
            after=producer,
            graph=graph,
            dtype=number_format.dtype,
            shape=value.shape,
        )
        return self._editor.node(
            "DequantizeLinear",
            [codes, scale, zero_point],
            name=f"{value.name}_DequantizeLinear",
            after=codes.producer(),
            dtype=dtype,
            shape=value.shape,
        )

    def _integer_bias(self, op: PlannedOp, node: ir.Node) -> IntegerBias | None:
        """The bias and the input's scale, if the bias is to be stored as integers."""
        index = op.operands.bias_index
        if not self._support.int32_bias or index is None or len(node.inputs) <= index:
            return None
        value = node.inputs[index]
        addend = constant_array(value)
        weight = op.operands.weight.const_value
        assert weight is not None and op.activation is not None
        channels = weight.shape[op.operands.output_axis]
        if addend is None or addend.shape not in ((channels,), (1, channels)):
            return None
        assert value is not None and value.name is not None
        scale = float(self._params(self._plan.inputs[op.node], op.activation).scale)
        return IntegerBias(value.name, addend.reshape(-1), scale)

    def _constants(self, op: PlannedOp, node: ir.Node, dtype: ir.DataType) -> None:
        """Replace the weight of `node`, and its bias if the target wants that, by integers."""
        operands = op.operands
        bias = self._integer_bias(op, node)
        added = None if bias is None else (bias.name, bias.input_scale)
        # ONNX Runtime fuses only weights of the graph that the op is in.
        graph = graph_of(node)
        transposed = operands.transposed and not op.tied
        key = (graph, operands.weight, op.weight, op.algorithm, transposed, added)
        if key not in self._stored:
            self._stored[key] = store(self._editor, graph, op, dtype, bias, transposed=transposed)
        stored = self._stored[key]
        if op.tied:
            self._tied[graph, operands.weight] = stored
        axis = 1 - operands.output_axis if transposed else operands.output_axis
        turned = operands.transposed and not transposed
        # Up to 1.27, ONNX Runtime takes codes that it transposes for unsigned ones without them.
        is_turned_int8 = turned and stored.codes.dtype == ir.DataType.INT8
        has_zero_points = is_turned_int8 or self._has_zero_points(node)
        zero = self._zero_points(stored.codes, axis) if has_zero_points else None
        weight = self._dequantize(node, "weight", stored.codes, stored.scale, axis, dtype, zero)
        if turned:
            weight = self._editor.node(
                "Transpose",
                [weight],
                name=f"{node.name}_weight_Transpose",
                before=node,
                attributes={"perm": (1, 0)},  # without which ONNX Runtime does not compute it early
                dtype=dtype,
            )
        node.replace_input_with(operands.weight_index, weight)
        if stored.bias is not None and operands.bias_index is not None:
            value = self._dequantize(node, "bias", stored.bias, stored.bias_scale, 0, dtype)
            node.replace_input_with(operands.bias_index, value)

    def _has_zero_points(self, node: ir.Node) -> bool:
        return node.op_type == "Gemm" and self._support.gemm_zero_points

    def _zero_points(self, codes: ir.Value, axis: int) -> ir.Value:
        """Zeros for the channels of a weight, made once."""
        if codes not in self._zeros:
            assert isinstance(codes.graph, ir.Graph)
            assert codes.shape is not None and codes.dtype is not None
            zeros = np.zeros(codes.shape.numpy()[axis], codes.dtype.numpy())
            self._zeros[codes] = self._editor.initializer(
                codes.graph, f"{codes.name}_zero_point", zeros
            )
        return self._zeros[codes]

    def _bias_row(self, node: ir.Node) -> None:
        """Let the constant vector that is added to a MatMul be a row."""
        product = node.outputs[0]
        if node.op_type != "MatMul" or product.shape is None or len(product.shape) < 3:
            return
        for adder, index in product.uses():
            bias = adder.inputs[1 - index] if adder.op_type == "Add" else None
            vector = constant_array(bias)
            if bias is not None and vector is not None and vector.ndim == 1:
                row = self._editor.initializer(
                    graph_of(adder), f"{bias.name}_row", vector[np.newaxis]
                )
                adder.replace_input_with(1 - index, row)

    def _table(self, op: PlannedOp, node: ir.Node, dtype: ir.DataType) -> None:
        """Let `node` gather rows of codes."""
        graph, table = graph_of(node), op.operands.weight
        stored = self._tied.get((graph, table)) or self._stored.get((graph, table, op.weight))
        if stored is None:
            stored = store(self._editor, graph, op, dtype, None, transposed=False)
            self._stored[graph, table, op.weight] = stored
        if self._support.gathers_codes:
            gather_rows(self._editor, node, stored.codes, stored.scale)
        else:
            whole = self._dequantize(node, "table", stored.codes, stored.scale, 0, dtype)
            node.replace_input_with(op.operands.weight_index, whole)

    def _dequantize(
        self,
        node: ir.Node,
        what: str,
        codes: ir.Value,
        scale: ir.Value | None,
        axis: int,
        dtype: ir.DataType,
        zero_point: ir.Value | None = None,
    ) -> ir.Value:
        return self._editor.node(
            "DequantizeLinear",
            [codes, scale] if zero_point is None else [codes, scale, zero_point],
            name=f"{node.name}_{what}_DequantizeLinear",
            before=node,
            attributes={"axis": axis},
            dtype=dtype,
            shape=codes.shape,
        )
