import onnx_ir as ir
import pytest

MODEL = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[batch, 3, width] x, int64[batch] ids) => (float[batch, 3, width] y, int64[batch] i)
<float[3, 1] w = {1.0, -2.0, 0.5}, float[1] one = {1.0}>
{
    a = Mul(x, w)
    b = Relu(a)
    y = Add(b, one)
    i = Identity(ids)
}
"""


@pytest.fixture
def model():
    return ir.from_onnx_text(MODEL)
