"""com.microsoft.GatherBlockQuantized: ONNX Runtime's Gather of blockwise weights.

    Y[.., L] = dequantize(data[indices])

Data is uint8 [rows, L * bits / 8], low bits first; scales [rows, ceil(L / block_size)] in Y's type;
zero points packed as one row of bytes each, absent if they are 2^(bits-1): the weight of
MatMulNBits with N = rows and K = L, but for its third axis. A table that shares its codes with such
a product reads them through a Reshape, which ONNX Runtime computes when it loads the model.
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes.edit import remove, replace_output
from onnxq.passes.lower.base import Lowering
from onnxq.passes.lower.matmul_nbits import packed_parts
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import PerBlock

_DOMAIN = "com.microsoft"


class GatherBlockQuantized(Lowering):
    """Gather of rows of a constant table becomes GatherBlockQuantized."""

    opset = 13

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        assert isinstance(op.weight.granularity, PerBlock)
        codes, *params = self.constants(op, lazy)
        old = node.outputs[0]
        output = self.editor.node(
            "GatherBlockQuantized",
            [self._rows(node, op, codes) if op.tied else codes, node.inputs[1], *params],
            name=f"{op.node}_GatherBlockQuantized",
            before=node,
            domain=_DOMAIN,
            attributes={
                "bits": formats.get(op.weight.format).bits,
                "block_size": op.weight.granularity.size,
                "gather_axis": 0,
                "quantize_axis": 1,
            },
            dtype=op.operands.weight.dtype,
            shape=old.shape,
        )
        replace_output(old, output)
        remove([node])

    def _rows(self, node: ir.Node, op: PlannedOp, codes: ir.Value) -> ir.Value:
        """Codes in the form of MatMulNBits as rows."""
        assert codes.shape is not None
        shape = [codes.shape.numpy()[0], -1]
        graph, name = self.editor.model.graph, f"{op.operands.weight.name}_rows"
        rows = self.editor.initializer(graph, name, np.array(shape))
        return self.editor.node(
            "Reshape", [codes, rows], name=f"{op.node}_rows", before=node, dtype=codes.dtype
        )

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        return packed_parts(op, lazy, as_matrix=not op.tied)


LOWERING = GatherBlockQuantized
