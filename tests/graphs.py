"""Models for tests, from text, and what they compute."""

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest

from onnxq import runtime, targets
from onnxq.cpu import has_vnni
from onnxq.passes.plan import QuantPlan, make_plan
from onnxq.recipe import resolve
from onnxq.targets import StaticSupport, Yes
from onnxq.targets.base import OP_KINDS
from onnxq.types import Array

# Whether weights are for CPUs with VNNI, where the integers of those can be computed.
VNNI = [
    pytest.param(
        True,
        marks=pytest.mark.skipif(
            not has_vnni(), reason="8-bit products overflow on this CPU, which has no VNNI"
        ),
    ),
    False,
]


def with_weights(graph: str, opset: int = 17, **given: Array) -> ir.Model:
    """The model of a graph in ONNX text syntax, whose inputs named w* become weights.

    Args:
        graph: "g (inputs) => (outputs) { nodes }".
        opset: Of the default domain.
        given: Weights by name; others are random, of deviation 0.1.
    """
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : {opset}]> {graph}')
    generator = np.random.default_rng(0)
    for value in [value for value in model.graph.inputs if (value.name or "").startswith("w")]:
        assert value.name is not None
        assert value.shape is not None
        assert value.dtype is not None
        array = given.get(value.name)
        if array is None:
            array = generator.normal(0, 0.1, value.shape.numpy())
        tensor = ir.tensor(array.astype(value.dtype.numpy()), name=value.name)
        value.const_value = tensor
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def compute(model: ir.Model, **feed: Array) -> list[Array]:
    """The outputs of `model` in ONNX Runtime, without its graph optimizations."""
    return runtime.session(model, optimize=False).run(None, feed)


def random_feed(model: ir.Model, seed: int = 0) -> dict[str, Array]:
    """Normally distributed floats for the inputs of `model`; symbolic dimensions are 3."""
    generator = np.random.default_rng(seed)
    return {
        value.name or "": generator.normal(
            size=[dim if isinstance(dim, int) else 3 for dim in value.shape or ()]
        ).astype((value.dtype or ir.DataType.FLOAT).numpy())
        for value in model.graph.inputs
    }


def plan_of_everything(model: ir.Model) -> QuantPlan:
    """A plan of all ops, whatever a target makes of them."""
    target = targets.get("rtx-sm89")
    support = StaticSupport(dict.fromkeys(OP_KINDS, Yes()), target.static().activations)
    return make_plan(model, resolve("int8"), dataclasses.replace(target, int8=support))
