"""What rules make of nodes: operands, axes, kinds, and refusals with a reason."""

import pytest
from graphs import with_weights

from onnxq.passes.qdq.rules import describe
from onnxq.targets import No
from onnxq.targets.base import OP_KINDS


def described(nodes, inputs, op="op", opset=18):
    model = with_weights(f"g ({inputs}) => (float[n] y) {{ {nodes} }}", opset)
    return describe(next(node for node in model.graph if node.name == op))


def refused(nodes, inputs):
    found = described(nodes, inputs)
    assert isinstance(found, No)
    return found.reason


@pytest.mark.parametrize(
    ("weight", "attributes", "kind"),
    [
        ("64, 32, 3, 3", "", "conv"),
        ("64, 31, 3, 3", "", "thin-conv"),
        ("15, 32, 3, 3", "", "thin-conv"),
        ("64, 1, 3, 3", "<group = 64>", "depthwise-conv"),
        ("64, 32, 3, 3", "<group = 2>", "conv"),
        ("64, 16, 3, 3", "<group = 2>", "thin-conv"),
        ("64, 32, 3", "", "conv"),
    ],
)
def test_kinds_of_conv(weight, attributes, kind):
    found = described(
        f"[op] y = Conv {attributes} (x, w, wb)", f"float[n] x, float[{weight}] w, float[64] wb"
    )
    assert (found.kind, found.output_axis, found.bias_index) == (kind, 0, 2)
    assert (found.activation, found.weight_index, found.reduced_axis) == (0, 1, None)
    assert kind in OP_KINDS


SQUEEZE = "p = GlobalAveragePool(x) {between} [op] y = Conv(h, w)"


@pytest.mark.parametrize(
    "between",
    [
        "h = Relu(p)",
        "h = Identity(p)",
        "r = Relu(p) s = Sigmoid(r) h = Mul(r, s)",
        "r = Conv(p, w2) h = HardSwish(r)",
    ],
)
def test_a_small_conv_on_pooled_values(between):
    found = described(
        SQUEEZE.format(between=between).replace("Identity", "Relu"),
        "float[1, 64, 8, 8] x, float[64, 64, 1, 1] w2, float[64, 64, 1, 1] w",
    )
    assert found.kind == "pooled-conv"


@pytest.mark.parametrize(
    ("between", "weight"),
    [
        ("h = Relu(p)", "1024, 64, 1, 1"),  # of many weights
        ("h = Mul(p, x)", "64, 64, 1, 1"),  # back to the whole image
        ("h = Resize(p, , , wsize)", "64, 64, 1, 1"),
    ],
)
def test_what_is_not_pooled(between, weight):
    found = described(
        SQUEEZE.format(between=between),
        f"float[1, 64, 8, 8] x, float[{weight}] w, int64[4] wsize",
    )
    assert found.kind == "conv"


def test_conv_transpose():
    found = described("[op] y = ConvTranspose(x, w)", "float[n] x, float[32, 64, 2, 2] w")
    assert (found.kind, found.output_axis) == ("conv-transpose", 1)
    assert "grouped" in refused(
        "[op] y = ConvTranspose <group = 2> (x, w)", "float[n] x, float[32, 64, 2, 2] w"
    )


@pytest.mark.parametrize(
    ("nodes", "output_axis", "transposed"),
    [
        ("[op] y = MatMul(x, w)", 1, False),
        ("[op] y = Gemm(x, w)", 1, False),
        ("[op] y = Gemm <transB = 1> (x, w)", 0, False),
        ("t = Transpose(w) [op] y = MatMul(x, t)", 0, True),
        ("t = Transpose <perm = [1, 0]> (w) [op] y = MatMul(x, t)", 0, True),
        ("t = Transpose(w) [op] y = Gemm(x, t)", 0, True),
        ("t = Transpose(w) [op] y = Gemm <transB = 1> (x, t)", 1, True),
    ],
)
def test_axes_of_matrices(nodes, output_axis, transposed):
    found = described(nodes, "float[n, 8] x, float[8, 8] w")
    assert (found.output_axis, found.reduced_axis) == (output_axis, 1 - output_axis)
    assert found.transposed == transposed
    assert found.weight.name == "w"


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("[op] y = MatMul(x, x)", "both of its operands are activations"),
        ("[op] y = MatMul(w, x)", "its weight is the left operand"),
        ("[op] y = MatMul(x, w3)", "its weight has 3 dimensions; a matrix is needed"),
        ("c = Add(w, x) [op] y = Gemm(x, c)", "computed at run time"),
        ("[op] y = Gemm <transA = 1> (x, w)", "transA = 1"),
        ("[op] y = Gemm <alpha = 0.5> (x, w)", "alpha or beta other than 1"),
        ("[op] y = Gemm <beta = 0.5> (x, w, wb)", "alpha or beta other than 1"),
        ("[op] y = Conv(x, x)", "computed at run time"),
        ("[op] y = ConvTranspose(x, x)", "computed at run time"),
    ],
)
def test_refusals(nodes, reason):
    inputs = "float[8, 8] x, float[8, 8] w, float[8] wb, float[2, 8, 8] w3"
    assert reason in refused(nodes, inputs)


def test_a_weight_of_a_type_that_is_not_quantized():
    assert refused("[op] y = MatMul(x, w)", "double[8, 8] x, double[8, 8] w") == (
        "its weight is double; float32, float16 or bfloat16 needed"
    )


HEADS = (
    "q1 = Reshape(q, ws) k1 = Reshape(k, ws) v1 = Reshape(v, ws) "
    "q2 = Transpose <perm = [0, 2, 1, 3]> (q1) k2 = Transpose <perm = [0, 2, 3, 1]> (k1) "
    "v2 = Transpose <perm = [0, 2, 1, 3]> (v1) s = MatMul(q2, k2) p = Softmax(s) y = MatMul(p, v2)"
)


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        (f"[op] h = MatMul(x, w) q, k, v = Split <num_outputs = 3> (h) {HEADS}", "fused-qkv"),
        (f"[op] h = Gemm(x, w) q, k, v = Split <num_outputs = 3> (h) {HEADS}", "fused-qkv"),
        (
            "[op] h = MatMul(x, w) a = Add(h, wb) r = Reshape(a, ws) "
            f"q = Gather(r, w0) k = Gather(r, w0) v = Gather(r, w0) {HEADS}",
            "fused-qkv",
        ),
        (
            f"[op] k = MatMul(x, w) q = MatMul(x, w2) v = MatMul(x, w3) {HEADS}",
            "matmul",
        ),
        (
            f"[op] h = MatMul(x, w) k, v = Split <num_outputs = 2> (h) q = MatMul(x, w2) {HEADS}",
            "matmul",
        ),
        (
            "[op] h = MatMul(x, w) a, b = Split <num_outputs = 2> (h) n = Neg(b) "
            f"q = Concat <axis = 1> (n, a) k = MatMul(x, w2) v = MatMul(x, w3) {HEADS}",
            "matmul",
        ),
        ("[op] h = MatMul(x, w) a, b = Split <num_outputs = 2> (h) y = Mul(a, b)", "matmul"),
    ],
)
def test_a_fused_query_key_value_projection(nodes, kind):
    inputs = (
        "float[8, 8] x, float[8, 8] w, float[8, 8] w2, float[8, 8] w3, float[8] wb, int64 w0, "
        "int64[4] ws"
    )
    assert described(nodes, inputs).kind == kind
