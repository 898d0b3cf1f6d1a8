"""com.microsoft.QMoE: ONNX Runtime's experts of a layer with blockwise weights.

Weights are uint8 [E, N, K * bits / 8], low bits first; scales [E, N, K / block_size] in the type of
the activation; zero points packed as one row of bytes per output, absent if they are 2^(bits-1).

Its kernel for the CPU always normalizes the weights of the experts chosen (1.32), unless it is
given the weights apart from what it chooses by. So where a MoE does not normalize them,

    MoE(x, r)   ->   QMoE(x, r, router_weights = Softmax(r))

(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes import weights
from onnxq.passes.experts import FIRST, SECOND
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.passes.weights._packing import pack_rows
from onnxq.types import Array, PerBlock

_DOMAIN = "com.microsoft"
_ZERO_POINTS = 11  # the input behind those of three weights, each with scales and a bias
_ROUTER_WEIGHTS = 14
_CHOSEN_BY = 1  # the input of MoE and QMoE


class QMoE(Lowering):
    """MoE becomes QMoE, in place."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        assert isinstance(op.weight.granularity, PerBlock)
        second = _second(op)
        source = second.operands.weight.const_value
        assert source is not None
        again = LazyWeight(source, second.weight, weights.get(op.algorithm))
        normalizes = node.attributes.get_int("normalize_routing_weights", 0)
        biases = [
            node.inputs[index] if len(node.inputs) > index else None
            for index in (FIRST + 1, SECOND + 1)
        ]
        inputs = list[ir.Value | None](node.inputs[:2]) + [None] * (_ROUTER_WEIGHTS - 1)
        for number, parts in enumerate((self.constants(op, lazy), self.constants(second, again))):
            codes, scales, *zero_points = parts
            first = FIRST + 3 * number
            inputs[first : first + 3] = [codes, scales, biases[number]]
            inputs[_ZERO_POINTS + number] = zero_points[0] if zero_points else None
        if not normalizes:
            chosen_by = node.inputs[_CHOSEN_BY]
            assert chosen_by is not None
            inputs[_ROUTER_WEIGHTS] = self.editor.node(
                "Softmax",
                [chosen_by],
                name=f"{node.name}_Softmax",
                before=node,
                attributes={"axis": -1},
                dtype=chosen_by.dtype,
            )
        while inputs[-1] is None:
            inputs.pop()
        node.op_type = "QMoE"
        node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)
        numbers = {
            "expert_weight_bits": formats.get(op.weight.format).bits,
            "block_size": op.weight.granularity.size,
            "weights_prepacked": 0,
            "accuracy_level": op.accuracy_level,
        }
        for name, number in numbers.items():
            node.attributes[name] = ir.AttrInt64(name, number)

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        assert isinstance(op.weight.granularity, PerBlock)
        experts, outputs, reduced = lazy.source.shape.numpy()
        blocks = reduced // op.weight.granularity.size
        number_format = formats.get(op.weight.format)
        bits, middle = number_format.bits, 1 << (number_format.bits - 1)
        dtype = op.operands.weight.dtype or ir.DataType.FLOAT

        def pack(array: Array, length: int, padding: int) -> Array:
            rows = array.view(np.uint8).reshape(-1, length)
            shift, row_bytes = middle - number_format.middle, -(-length * bits // 8)
            packed = pack_rows(rows, True, bits, shift, padding, row_bytes)
            return packed.reshape(experts, outputs, row_bytes)

        parts = {
            "codes": lazy.part(
                lambda q: pack(q.codes, reduced, middle),
                ir.DataType.UINT8,
                (experts, outputs, reduced * bits // 8),
            ),
            "scales": lazy.part(lambda q: q.params.scale, dtype, (experts, outputs, blocks)),
        }
        if not op.weight.symmetric:
            parts["zero_points"] = lazy.part(
                lambda q: pack(q.params.zero_point, blocks, 0),
                ir.DataType.UINT8,
                (experts, outputs, -(-blocks * bits // 8)),
            )
        return parts


def _second(op: PlannedOp) -> PlannedOp:
    """`op` as far as its second weight is concerned."""
    weight = op.operands.second
    assert weight is not None
    return replace(op, operands=replace(op.operands, weight=weight))


LOWERING = QMoE
