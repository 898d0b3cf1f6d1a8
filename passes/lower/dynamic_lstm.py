"""com.microsoft.DynamicQuantizeLSTM: an LSTM of int8 weights that quantizes what they multiply.

Weights are [directions, in, 4 * hidden], with a scale and a zero point for each output
[directions, 4 * hidden]; all else is as in LSTM, in float32.
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes import weights
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import PerBlock

_DOMAIN = "com.microsoft"
_INPUTS = 8  # of LSTM, behind which scales and zero points follow


class DynamicLstm(Lowering):
    """LSTM becomes DynamicQuantizeLSTM, in place."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        codes, *params = self.constants(op, lazy)
        recurrent = _recurrent(op)
        source = recurrent.operands.weight.const_value
        assert source is not None
        again = LazyWeight(source, recurrent.weight, weights.get(op.algorithm))
        recurrent_codes, *recurrent_params = self.constants(recurrent, again)
        node.op_type, node.domain = "DynamicQuantizeLSTM", _DOMAIN
        node.attributes.pop("layout", None)
        node.resize_inputs(_INPUTS + 4)
        for index, value in (
            (op.operands.weight_index, codes),
            (op.operands.weight_index + 1, recurrent_codes),
            *enumerate([*params, *recurrent_params], _INPUTS),
        ):
            node.replace_input_with(index, value)
        self.editor.model.opset_imports.setdefault(_DOMAIN, 1)

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        dtype = formats.get(op.weight.format).dtype
        directions, outputs, reduced = lazy.source.shape.numpy()
        per_output = (directions, outputs)
        return {
            "codes": lazy.part(
                lambda q: q.codes.transpose(0, 2, 1), dtype, (directions, reduced, outputs)
            ),
            "scale": lazy.part(
                lambda q: q.params.scale.reshape(per_output), ir.DataType.FLOAT, per_output
            ),
            "zero_point": lazy.part(lambda q: np.zeros(per_output, np.int8), dtype, per_output),
        }


def _recurrent(op: PlannedOp) -> PlannedOp:
    """`op` as far as its second weight is concerned."""
    weight = op.operands.second
    assert weight is not None and weight.const_value is not None
    granularity = PerBlock(2, weight.const_value.shape.numpy()[2])
    return replace(
        op,
        operands=replace(op.operands, weight=weight),
        weight=replace(op.weight, granularity=granularity),
    )


LOWERING = DynamicLstm
