"""Models for tests, from text."""

import numpy as np
import onnx_ir as ir

from onnxq.types import Array


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
