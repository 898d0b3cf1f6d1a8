"""Which nodes go on computing in float32 when activations become float16 or bfloat16, and why.

- A node that sums up or exponentiates, of an op that takes no narrower type, or that reads a number
  which does not fit. What does not fit goes on through the nodes behind until one bounds it
  (Softmax, Sigmoid ...): a mask of -3.4e38, say.
- A node that makes floats of integers, such as positions, and those behind it, until one bounds
  them: the angles that cosines and sines are of.
- A node that moves, scales or adds what only nodes in float32 read: scores before a Softmax.

The norms and the attention that are one op sum up in float32 by themselves, whatever they read.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxq.errors import ModelError
from onnxq.onnxfile import release
from onnxq.passes.edit import constant
from onnxq.passes.value_types import FLOATS, float_inputs, formal, is_fixed, schema
from onnxq.types import Array

_PART = 1 << 20  # elements that are looked at together
_NORMS = ("SimplifiedLayerNormalization", "LayerNormalization", "RMSNormalization")
_OF_ONNX_RUNTIME = (
    *_NORMS,
    *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization"),
    *("GroupQueryAttention", "MultiHeadAttention", "Attention", "RotaryEmbedding"),
    *("Gelu", "FastGelu", "BiasGelu", "QuickGelu"),
    *("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "FusedMatMul"),
)
_SENSITIVE = (
    *("Softmax", "LogSoftmax", "Softplus", "Exp", "Log", "Pow", "Sqrt", "Reciprocal"),
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"),
    *("ReduceLogSum", "ReduceLogSumExp", "CumSum", "Cos", "Sin", "Tan", "Range"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization"),
    *("MeanVarianceNormalization",),
)
_BOUNDING = ("Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Cos", "Sin", "Exp")
_POINTWISE = (
    *("Add", "Sub", "Mul", "Div", "Neg", "Where", "Min", "Max"),
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand"),
)
_MADE = "it makes floats of integers"
_COUNTS = "it computes with numbers made of integers"
_LEADS = "what it gives is read in float32 alone"


def wide_nodes(
    model: ir.Model, narrow: ir.DataType, products: AbstractSet[str], wide_attention: str = ""
) -> dict[ir.Node, str]:
    """The nodes of the main graph that stay in float32, each with its reason.

    Args:
        model: With the types of its values known.
        narrow: What activations become.
        products: The names of nodes that do not stay, whatever they read.
        wide_attention: Why products with the result of a Softmax stay; empty if they do not.

    Raises:
        ModelError: One of those reads what does not fit.
    """
    wide: dict[ir.Node, str] = {}
    unfit: set[ir.Value] = set()
    exact: set[ir.Value] = set()  # made of integers
    for node in model.graph:
        reads = [value for value in node.inputs if value is not None and value.dtype in FLOATS]
        if node.name in products:
            _require_fitting(node, reads, unfit, narrow)
            continue
        misfit = _misfit(reads, unfit, narrow)
        counts = _COUNTS if exact.intersection(reads) else None
        reason = _need(node, model, narrow) or misfit or counts or _too_small(reads, narrow)
        if wide_attention and _weighs(node):
            reason = wide_attention
        if reason is not None:
            wide[node] = reason
        if node.op_type in _BOUNDING:
            continue
        if misfit is not None:
            unfit.update(node.outputs)
        if counts is not None or reason == _MADE:
            exact.update(node.outputs)
    for node in reversed(model.graph):
        if node.name not in products and node not in wide and _is_for(node, wide):
            wide[node] = _LEADS
    return wide


def _need(node: ir.Node, model: ir.Model, narrow: ir.DataType) -> str | None:
    """Why an op cannot compute in the narrow type, or should not."""
    name = narrow.name.lower()
    if node.op_type == "Cast":
        return _need_of_cast(node)
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    if any(isinstance(value.type, (ir.SequenceType, ir.OptionalType)) for value in values):
        return "it reads or makes a sequence or an optional, which keeps its type"
    touches = any(value.dtype in FLOATS for value in values)
    if not touches:
        return None
    if node.op_type in _SENSITIVE:
        return f"its sums or powers would lose digits or overflow in {name}"
    if node.op_type in _NORMS and node.attributes.get_int("stash_type", 1) != 1:
        return f"it would sum up in {name}"
    if node.op_type in _OF_ONNX_RUNTIME:
        return None
    known = schema(node, model)
    if known is None:
        return f"it is not known to run in {name}"
    bound = (formal(list(known.inputs), index) for index in float_inputs(node))
    takes = all(is_fixed(each) or f"tensor({name})" in each.types for each in bound)
    return None if takes else f"{node.op_type} takes no {name}"


def _need_of_cast(node: ir.Node) -> str | None:
    source, made = node.inputs[0], node.outputs[0].dtype
    if made not in FLOATS or (source is not None and source.dtype == ir.DataType.BOOL):
        return None
    if source is None or source.dtype not in FLOATS:
        return _MADE
    return "the model casts to it" if made == ir.DataType.FLOAT else None


def _weighs(node: ir.Node) -> bool:
    """Whether a node multiplies what a Softmax gives by what the model computes."""
    if node.op_type != "MatMul" or any(constant(value) is not None for value in node.inputs):
        return False
    value = node.inputs[0]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "Softmax":
            return True
        if producer.op_type not in _POINTWISE:
            return False
        value = next((v for v in producer.inputs if v is not None and v.dtype in FLOATS), None)
    return False


def _is_for(node: ir.Node, wide: dict[ir.Node, str]) -> bool:
    """Whether what a node gives is read by nodes in float32 alone."""
    if node.op_type not in _POINTWISE or node.domain or node.outputs[0].dtype not in FLOATS:
        return False
    readers = [reader for reader, _ in node.outputs[0].uses()]
    is_output = node.outputs[0].is_graph_output()
    computes = all(reader in wide and reader.op_type != "Cast" for reader in readers)
    return bool(readers) and not is_output and computes


def _require_fitting(
    node: ir.Node, reads: list[ir.Value], unfit: AbstractSet[ir.Value], narrow: ir.DataType
) -> None:
    tensors = {value: constant(value) for value in reads}
    checked = [v for v, tensor in tensors.items() if tensor is None or len(tensor.shape) < 2]
    reason = _misfit(checked, unfit, narrow)
    if reason is not None:
        raise ModelError(
            f"'{node.name}' is to be quantized with activations in {narrow.name.lower()}, but "
            f"{reason}.",
            "Exclude it, or leave the activations in float32.",
        )


def _misfit(reads: list[ir.Value], unfit: AbstractSet[ir.Value], narrow: ir.DataType) -> str | None:
    """Which of the inputs is beyond the narrow type."""
    name, most = narrow.name.lower(), _limits(narrow)[1]
    for value in reads:
        if value in unfit:
            return f"it reads '{value.name}', which may be beyond {name}"
        largest = _largest(constant(value))
        if largest > most:
            return f"its constant '{value.name}' holds {largest:.4g}, and {name} ends at {most:.5g}"
    return None


def _too_small(reads: list[ir.Value], narrow: ir.DataType) -> str | None:
    """Which number among the inputs would keep few of its digits."""
    for value in reads:
        tensor = constant(value)
        if tensor is not None and tensor.size == 1 and 0 < _largest(tensor) < _limits(narrow)[0]:
            return f"'{value.name}' is too small a number for {narrow.name.lower()}"
    return None


def _limits(narrow: ir.DataType) -> tuple[float, float]:
    """The smallest number of full precision, and the largest."""
    limits = ml_dtypes.finfo(narrow.numpy())  # type: ignore[no-untyped-call]
    return float(limits.smallest_normal), float(limits.max)


def _largest(tensor: ir.TensorProtocol | None) -> float:
    """The largest finite magnitude; 0 if there is none."""
    if tensor is None:
        return 0.0
    found = _largest_of(tensor.numpy())
    release(tensor)
    return found


def _largest_of(array: Array) -> float:
    found, flat = 0.0, array.reshape(-1)
    for start in range(0, flat.size, _PART):
        magnitudes = np.abs(flat[start : start + _PART])
        found = max(found, float(magnitudes.max(where=np.isfinite(magnitudes), initial=0)))
    return found
