"""MatMul and Gemm of int8 weights and activations quantized at run time: ONNX Runtime's form.

    q, s, z = DynamicQuantizeLinear(x)                          q: uint8
    y       = Cast(MatMulInteger(q, W, z)) * (s * scale) [+ bias]

with W int8 [K, N] and one scale per output. ONNX Runtime fuses it into one DynamicQuantizeMatMul,
or into one MatMulIntegerToFloat for each of several products that read the same x, which is
quantized once.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxq import formats
from onnxq.passes.edit import Editor, graph_of, remove, replace_output
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight

_FLOAT = ir.DataType.FLOAT


class DynamicQuantize(Lowering):
    """MatMul or Gemm with a constant weight becomes a MatMulInteger between floats."""

    opset = 13

    def __init__(self, editor: Editor, stored: dict[LazyWeight, list[ir.Value]]) -> None:
        super().__init__(editor, stored)
        self._quantized: dict[tuple[ir.Graph, ir.Value], Sequence[ir.Value]] = {}

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        dtype = op.operands.weight.dtype or _FLOAT
        codes, scale, zero_point = self._activation(node, op)
        weight, weight_scale = self.constants(op, lazy)
        if op.tied:  # codes are the rows of a table
            weight = self._before(node, "Transpose", [weight], weight.dtype or ir.DataType.INT8)
        sums = self._before(node, "MatMulInteger", [codes, weight, zero_point], ir.DataType.INT32)
        product = self._cast(node, sums, _FLOAT)
        unit = self._before(node, "Mul", [scale, weight_scale], _FLOAT)
        output = self._before(node, "Mul", [product, unit], _FLOAT)
        if dtype != _FLOAT:
            output = self._cast(node, output, dtype)
        if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
            output = self._before(node, "Add", [output, node.inputs[2]], dtype)
        replace_output(node.outputs[0], output)
        remove([node])

    def _activation(self, node: ir.Node, op: PlannedOp) -> Sequence[ir.Value]:
        """The codes, scale and zero point of what `node` reads, computed once in its graph."""
        value = node.inputs[op.operands.activation]
        assert value is not None
        key = (graph_of(node), value)
        if key not in self._quantized:
            if (op.operands.weight.dtype or _FLOAT) != _FLOAT:
                value = self._cast(node, value, _FLOAT)
            codes = self.editor.node(
                "DynamicQuantizeLinear",
                [value],
                name=f"{value.name}_DynamicQuantizeLinear",
                before=node,
                num_outputs=3,
                dtype=ir.DataType.UINT8,
                shape=value.shape,
            )
            quantize = codes.producer()
            assert quantize is not None
            self._quantized[key] = quantize.outputs
        return self._quantized[key]

    def _cast(self, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        return self._before(node, "Cast", [value], dtype, to=int(dtype))

    def _before(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dtype: ir.DataType,
        **attributes: int,
    ) -> ir.Value:
        return self.editor.node(
            op_type,
            inputs,
            name=f"{node.name}_{op_type}",
            before=node,
            attributes=dict(attributes),
            dtype=dtype,
        )

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        transposed = op.operands.output_axis == 0 and not op.tied
        shape = lazy.source.shape.numpy()
        return {
            "codes": lazy.part(
                lambda q: q.codes.T if transposed else q.codes,
                formats.get(op.weight.format).dtype,
                shape[::-1] if transposed else shape,
            ),
            "scale": lazy.part(lambda q: q.params.scale, _FLOAT, (shape[op.operands.output_axis],)),
        }


LOWERING = DynamicQuantize
