"""DequantizeLinear with a block size, in front of MatMul or Gemm: standard ONNX (opset 21).

TensorRT fuses it into the product. Codes keep the layout of the weight that they stand for.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxq import formats
from onnxq.passes.edit import rewire
from onnxq.passes.lower.base import Lowering
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import PerBlock


class BlockDequantize(Lowering):
    """The op reads its weight through a blockwise DequantizeLinear of its own."""

    opset = 21

    def lower(self, node: ir.Node, op: PlannedOp, lazy: LazyWeight) -> None:
        """See `Lowering.lower`."""
        granularity = op.weight.granularity
        assert isinstance(granularity, PerBlock)
        codes, *params = self.constants(op, lazy)
        dtype = op.operands.weight.dtype or ir.DataType.FLOAT
        reader, index = node, op.operands.weight_index
        if op.operands.transposed:
            # The weight goes through the Transpose that is there; another reader keeps the float.
            transpose = node.inputs[index].producer()  # type: ignore[union-attr]
            assert transpose is not None
            reader, index = self._own_transpose(transpose, node, index), 0
        weight = self.editor.node(
            "DequantizeLinear",
            [codes, *params],
            name=f"{op.node}_weight_DequantizeLinear",
            before=reader,
            attributes={"axis": granularity.axis, "block_size": granularity.size},
            dtype=dtype,
            shape=codes.shape,
        )
        reader.replace_input_with(index, weight)

    def _own_transpose(self, transpose: ir.Node, node: ir.Node, index: int) -> ir.Node:
        old = transpose.outputs[0]
        perm = transpose.attributes.get_ints("perm", None)
        output = self.editor.node(
            "Transpose",
            [transpose.inputs[0]],
            name=f"{node.name}_weight_Transpose",
            before=node,
            attributes=None if perm is None else {"perm": perm},
            dtype=old.dtype,
            shape=old.shape,
        )
        rewire([(node, index)], output)
        producer = output.producer()
        assert producer is not None
        return producer

    def parts(self, op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
        """See `Lowering.parts`."""
        return plain_parts(op, lazy)


def plain_parts(op: PlannedOp, lazy: LazyWeight) -> dict[str, ir.LazyTensor]:
    """The tensors of a weight whose codes have its own shape."""
    assert isinstance(op.weight.granularity, PerBlock)
    axis, size = op.weight.granularity.axis, op.weight.granularity.size
    dtype = op.operands.weight.dtype or ir.DataType.FLOAT
    number_format = formats.get(op.weight.format)
    shape = tuple(lazy.source.shape.numpy())
    outputs = 1 - axis if len(shape) == 2 else None
    blocks = (*shape[:axis], -(-shape[axis] // size), *shape[axis + 1 :])
    parts = {
        "codes": lazy.part(lambda q: q.codes, number_format.dtype, shape, outputs),
        "scale": lazy.part(lambda q: q.params.scale, dtype, blocks, outputs),
    }
    if not op.weight.symmetric:
        parts["zero_point"] = lazy.part(
            lambda q: q.params.zero_point, number_format.dtype, blocks, outputs
        )
    return parts


LOWERING = BlockDequantize
