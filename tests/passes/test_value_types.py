"""Types behind ops that shape inference does not know."""

import onnx_ir as ir
from graphs import with_weights

from onnxq.passes.value_types import infer_types


def test_types_go_on_behind_ops_of_onnx_runtime():
    model = with_weights(
        """
        g (float16[2, 4] x, float16[4] w) => (float16[2, 4] y) {
            sum = Gelu(x)
            normed, mean = LayerNormalization(sum, w)
            one = Shape(normed)
            filled = ConstantOfShape(one)
            half = Cast<to = 10>(filled)
            y = Add(normed, half)
        }
        """,
    )
    model.graph[0].domain = "com.microsoft"
    model.opset_imports["com.microsoft"] = 1
    infer_types(model)
    types = {v.name: v.dtype for node in model.graph for v in node.outputs}
    half = ir.DataType.FLOAT16
    assert types == {
        "sum": half,
        "normed": half,
        "mean": ir.DataType.FLOAT,  # of a norm, whatever it computes in
        "one": ir.DataType.INT64,
        "filled": ir.DataType.FLOAT,
        "half": half,
        "y": half,
    }
