"""How the weight and bias of a quantized op are stored.

Integer kernels accumulate products of codes in int32, in units of (input scale * weight scale), and
add the bias there:

    bias_code = round(bias / (input_scale * weight_scale[channel]))

A channel of tiny weights and a large bias would overflow it. Its weight scale is then raised to the
smallest that does not, at the cost of weights too small to matter beside that bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxq import formats
from onnxq.passes import weights
from onnxq.passes.edit import Editor
from onnxq.passes.plan import PlannedOp
from onnxq.passes.weights._lazy import LazyWeight
from onnxq.types import Array, PerAxis, QTensor

# Half of int32's range: the other half is for the sum of products.
_LARGEST_BIAS = 2**30


@dataclass(frozen=True)
class Stored:
    """The constants of a quantized op; without a bias if that stays in float."""

    codes: ir.Value
    scale: ir.Value
    bias: ir.Value | None = None
    bias_scale: ir.Value | None = None


@dataclass(frozen=True, eq=False)
class IntegerBias:
    """A bias to be stored as int32.

    Attributes:
        name: Of the float bias.
        values: Floats [channels].
        input_scale: The scale of the op's input.
    """

    name: str
    values: Array
    input_scale: float


def store(
    editor: Editor,
    graph: ir.Graph,
    op: PlannedOp,
    dtype: ir.DataType,
    bias: IntegerBias | None,
    *,
    transposed: bool,
) -> Stored:
    """Create the constants of `op`, computed when they are written.

    Args:
        editor: Of the model.
        graph: Where they go.
        op: A planned static op; its weight has one scale per output channel.
        dtype: The float type that the op computes in.
        bias: None to leave the bias in float.
        transposed: Whether the codes of a matrix are stored transposed.
    """
    value = op.operands.weight
    assert value.const_value is not None
    assert isinstance(op.weight.granularity, PerAxis)
    axis = op.weight.granularity.axis
    shape = tuple(value.const_value.shape.numpy())
    number_format = formats.get(op.weight.format)
    floor = np.abs(bias.values) / (bias.input_scale * _LARGEST_BIAS) if bias is not None else 0.0

    def scale_of(quantized: QTensor) -> Array:
        return np.maximum(quantized.params.scale, floor).astype(np.float32)

    def codes_of(quantized: QTensor) -> Array:
        shrink = quantized.params.scale / scale_of(quantized)
        codes = quantized.codes
        if (shrink < 1).any():
            along = [-1 if i == axis else 1 for i in range(codes.ndim)]
            codes = np.rint(codes * shrink.reshape(along)).astype(codes.dtype)
        return codes.T if transposed else codes

    lazy = LazyWeight(value.const_value, op.weight, weights.get(op.algorithm))

    codes = editor.initializer(
        graph,
        f"{value.name}_quantized",
        lazy.part(codes_of, number_format.dtype, shape[::-1] if transposed else shape),
    )
    scale = editor.initializer(
        graph, f"{value.name}_scale", lazy.part(scale_of, dtype, (shape[axis],))
    )
    if bias is None:
        return Stored(codes, scale)

    def bias_scale_of(quantized: QTensor) -> Array:
        return np.asarray(scale_of(quantized) * np.float32(bias.input_scale))

    def bias_of(quantized: QTensor) -> Array:
        return np.rint(bias.values.astype(np.float64) / bias_scale_of(quantized)).astype(np.int32)

    return Stored(
        codes,
        scale,
        editor.initializer(
            graph, f"{bias.name}_quantized", lazy.part(bias_of, ir.DataType.INT32, (shape[axis],))
        ),
        editor.initializer(
            graph, f"{bias.name}_scale", lazy.part(bias_scale_of, dtype, (shape[axis],))
        ),
    )
