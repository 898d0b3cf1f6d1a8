"""Turn the residual stream of a model by an orthogonal matrix, which it computes the same with.

    x -> x Q:    W_out -> W_out Q      g * W_in -> Q^T diag(g) W_in      rms(x Q) = rms(x)

A few channels of x are huge, as those of language models are, and what is rounded in the rows of
W_in that they meet, makes most of the error. Turned, all channels are much alike. (QuaRot, Ashkboos
et al. 2024, arXiv:2404.00456; its first rotation, by Hadamard matrices, for weights alone.)

Measured on SmolLM2-135M, body in symmetric 4 bits, blocks of 32, float head, on each half of 8,192
tokens, the KL divergence from float is

    gptq                      0.124 and 0.129, turned 0.097 and 0.100
    gptq, with zero points    0.101 and 0.102, turned 0.079 and 0.079
    gptq, all, zero points    0.128 and 0.123, turned 0.103 and 0.100
    gptq, budget of 90 MB     0.090 and 0.087, turned 0.094 and 0.096
    auto (on 4,096 tokens)    0.434 and 0.407, turned 0.586 and 0.572

so without data it does harm, and where bits are chosen for a budget it does no good: it is done
where weights go by GPTQ and have the bits that are asked for. A rotation of the values of each head
beside it does not lessen it (0.098 and 0.101), and so is left out, nor do signs drawn at random
before it (0.102 and 0.099).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.errors import ModelError
from onnxq.onnxfile import release
from onnxq.passes.casts import CastTensor
from onnxq.passes.edit import Editor, constant_array, remove, rewire
from onnxq.passes.plan import QuantPlan
from onnxq.passes.transforms.channels import product
from onnxq.passes.transforms.hadamard import Rotation, rotation
from onnxq.passes.transforms.places import Places
from onnxq.passes.transforms.stream import Norm, Stream, streams
from onnxq.passes.value_types import infer_types
from onnxq.passes.weights import first_name
from onnxq.types import Array

_ALGORITHM = "gptq"
_TURNS = "it turns the residual stream, and what is turned back has to be what it was"
_NONE = (
    "it has no residual stream read through norms that only scale (RMSNorm): a LayerNormalization "
    "subtracts the mean of the channels, which does not turn with them"
)
_BUDGET = "with bits chosen for a budget it was measured to do no good; --rotate does it"
_MIXED = f"not all of the weights that would be turned go by {_ALGORITHM}"


def rotate(
    model: ir.Model, plan: QuantPlan, moments: Mapping[str, Array]
) -> tuple[QuantPlan, dict[str, Array]]:
    """Turn the residual streams of `model` if its recipe says so, or by itself where that pays.

    Args:
        model: Of the plan; edited in place.
        plan: What becomes of it.
        moments: The sum of x x^T of each activation, by its name.

    Returns:
        The plan of the model as it is now, which says what was turned, and the moments as they are
        now.

    Raises:
        ModelError: The recipe asks for it, and the model has nothing to turn.
    """
    asked = plan.recipe.rotate
    planned = {op.node: first_name(op.algorithm) for op in plan.products}
    if asked is False or not (asked or _ALGORITHM in planned.values()):
        return plan, dict(moments)
    if asked is None and plan.recipe.has_budget:
        return replace(plan, rotation=f"not rotated: {_BUDGET}"), dict(moments)
    common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    infer_types(model)
    problems, turned = [], []
    found = streams(model)
    for stream in found:
        matrix = rotation(stream.width)
        used = {planned[n.name or ""] for n in stream.products if (n.name or "") in planned}
        if stream.problem or matrix is None:
            odd = f"there is no Hadamard matrix of its {stream.width} channels"
            problems.append(stream.problem or odd)
        elif asked or used == {_ALGORITHM}:
            turned.append((stream, matrix))
    if not turned:
        reason = "; ".join(problems) or (_MIXED if found else _NONE)
        if asked:
            raise ModelError(
                f"The residual stream of the model cannot be rotated: {reason}.",
                "Leave out what asks for it (--rotate, or rotate: true).",
            )
        return replace(plan, rotation=f"not rotated: {reason}"), dict(moments)
    note = "; ".join(_told(*each) for each in turned)
    after, turning = dict(moments), []
    for stream, matrix in turned:
        edit = _Turn(model, plan, stream, matrix)
        turning += edit.run()
        after |= edit.moments(moments)
    for op in plan.products:  # what reads a value that was turned back has what it had
        value, before = (
            plan.graph_nodes[op.node].inputs[op.operands.activation],
            plan.inputs[op.node],
        )
        if value is not None and value.name is not None and before in moments:
            after.setdefault(value.name, moments[before])
    again = plan.again(model)
    ours = {op.node: _TURNS for op in again.ops if op.node in turning}
    return replace(again.leave_float(ours), rotation=note), after


def _told(stream: Stream, matrix: Rotation) -> str:
    at = f", at run time at {' and '.join(stream.ends)}" if stream.ends else ""
    return (
        f"rotated: {stream.width} channels of the residual stream, by Hadamard matrices of "
        f"{len(matrix.left)} and {len(matrix.right)}, in {len(stream.products)} weights{at}"
    )


class _Turn:
    """Of one stream by one matrix."""

    def __init__(self, model: ir.Model, plan: QuantPlan, stream: Stream, matrix: Rotation) -> None:
        self._model = model
        self._editor = Editor(model)
        self._places = Places(self._editor)
        self._stream = stream
        self._matrix = matrix
        # What each reader multiplies: the name before, and the factors that go into its weight.
        self._read = {
            node: (plan.inputs.get(node.name or "", ""), factors)
            for node, factors in self._readers()
        }

    def run(self) -> list[str]:
        """Edit the model.

        Returns:
            The names of the nodes that turn at run time.
        """
        stream = self._stream
        for value in stream.entries:
            out = stream.exits.pop(value, [])
            self._places.hand_on(value, self._places.turned(value, self._matrix), except_for=out)
        back = self._matrix.inverse
        for value, uses in stream.exits.items():
            turned = self._places.turned(value, back)
            rewire(uses, turned)
            self._places.hand_out(value, turned)
        for norm in stream.norms:
            self._take_factors(norm, back)
        for node, (_, factors) in self._read.items():
            self._fold(node, factors)
        for node in stream.writers:
            self._fold(node, None, writes=True)
        for node in stream.tables:
            assert node.inputs[0] is not None
            self._turn_weight(node.inputs[0], 1, None)
        for node, index in stream.constants:
            self._turn_constant(node, index)
        return self._places.nodes

    def moments(self, before: Mapping[str, Array]) -> dict[str, Array]:
        """Of what the readers multiply now: Q^T diag(1/g) H diag(1/g) Q, by its name."""
        found = {}
        for node, (name, factors) in self._read.items():
            value = node.inputs[0]
            assert value is not None and value.name is not None
            if name in before and value.name not in found:
                moment = before[name] if factors is None else _unscaled(before[name], factors)
                found[value.name] = self._matrix.turned(self._matrix.turned(moment, 0), 1)
        return found

    def _readers(self) -> Iterator[tuple[ir.Node, Array | None]]:
        for node in self._stream.readers:
            yield node, None
        for norm in self._stream.norms:
            factors = constant_array(norm.node.inputs[norm.scale])
            assert factors is not None
            for node in norm.products or ():
                yield node, factors.astype(np.float64)

    def _take_factors(self, norm: Norm, back: Rotation) -> None:
        """Leave the factors of a norm to what reads it."""
        node, scale = norm.node, norm.node.inputs[norm.scale]
        assert scale is not None and scale.dtype is not None
        output = node.outputs[0]
        if not norm.is_fused:
            source = node.inputs[1 - norm.scale]
            assert source is not None
            self._places.hand_on(output, source)
            remove([node])
            return
        ones = np.ones(self._stream.width, scale.dtype.numpy())
        node.replace_input_with(
            norm.scale, self._editor.initializer(self._model.graph, f"{scale.name}_ones", ones)
        )
        if norm.products is None:
            uses = list(output.uses())
            turned = self._places.turned(output, back)
            scaled = self._places.node("Mul", [turned, scale], output, turned)
            rewire(uses, scaled)
            self._places.hand_out(output, scaled)

    def _fold(self, node: ir.Node, factors: Array | None, *, writes: bool = False) -> None:
        operands = product(node)
        assert operands is not None and operands.reduced_axis is not None
        axis = operands.output_axis if writes else operands.reduced_axis
        self._turn_weight(operands.weight, axis, factors)
        at = operands.bias_index
        if writes and at is not None and at < len(node.inputs) and node.inputs[at] is not None:
            self._turn_constant(node, at)

    def _turn_weight(self, value: ir.Value, axis: int, factors: Array | None) -> None:
        source, matrix = value.const_value, self._matrix
        assert source is not None

        def compute() -> ir.Tensor[Array]:
            weight = source.numpy()
            if factors is not None:
                along = factors[:, None] if axis == 0 else factors
                weight = weight.astype(np.float32) * along.astype(np.float32)
            turned = matrix.turned(weight, axis)
            release(source)
            return ir.Tensor(turned, name=value.name)

        lazy = ir.LazyTensor(
            compute, ir.DataType.FLOAT, ir.Shape(source.shape.numpy()), name=value.name
        )
        same = source.dtype == ir.DataType.FLOAT
        value.const_value = lazy if same else CastTensor(lazy, source.dtype)

    def _turn_constant(self, node: ir.Node, index: int) -> None:
        value = node.inputs[index]
        array = constant_array(value)
        assert array is not None and value is not None
        turned = self._matrix.turned(array.astype(np.float64), 0).astype(array.dtype)
        name = f"{value.name}_turned"
        node.replace_input_with(index, self._editor.initializer(self._model.graph, name, turned))


def _unscaled(moment: Array, factors: Array) -> Array:
    """The moment of what was multiplied by `factors`; where they are 0, it counts as the mean."""
    used = factors != 0
    inverse = np.where(used, 1 / np.where(used, factors, 1), 0)
    found = np.asarray(moment * np.outer(inverse, inverse))
    if used.any() and not used.all():
        hidden = np.flatnonzero(~used)
        found[hidden, hidden] = np.diag(found)[used].mean()
    return found
