"""ONNX Runtime multiplies integers in every product that is planned so: read from its own graph."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from graphs import compute, random_feed, with_weights

import onnxq

INTEGER = {"QGemm", "MatMulIntegerToFloat", "QLinearMatMul"}
PRODUCTS = {*INTEGER, "Gemm", "MatMul", "FusedMatMul", "FusedGemm"}
GRAPH = (
    "g (float[{shape}, 64] x, float[{shape}, 64] z, float[64, 64] w1, float{bias} wb1, "
    "float[64, 64] w2, float{bias} wb2) => (float[{shape}, 64] y) {{ {nodes} }}"
)
MATMULS = (
    "p = MatMul(x, w1) s = Add(p, wb1) r = Relu(s) q = MatMul(r, w2) t = Add(wb2, q) y = Relu(t)"
)
GEMMS = "s = Gemm(x, w1, wb1) r = Relu(s) y = Gemm <transB = 1> (r, w2, wb2)"


def products_of(model, path):
    """The products in what ONNX Runtime makes of a model."""
    onnx.save(ir.to_proto(model), path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path / "m.onnx", options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(path / "optimized.onnx").graph.node
    return [node.op_type for node in nodes if node.op_type in PRODUCTS]


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize(
    ("nodes", "shape", "bias"),
    [
        (MATMULS, "3", "[64]"),
        (MATMULS, "n", "[64]"),
        (MATMULS, "3", "[1, 64]"),
        (MATMULS, "2, 3", "[64]"),
        (MATMULS, "2, 3", "[1, 64]"),
        (MATMULS, "2, 3", "[1, 1, 64]"),
        (MATMULS, "2, 3, 5", "[64]"),
        (MATMULS, "n, m", "[64]"),
        ("p = MatMul(x, w1) r = Add(p, z) q = MatMul(r, w2) y = Add(q, wb1)", "3", "[64]"),
        ("p = MatMul(x, w1) r = Add(p, z) q = MatMul(r, w2) y = Add(q, wb1)", "2, 3", "[64]"),
        (GEMMS, "3", "[64]"),
        (GEMMS, "n", "[1, 64]"),
    ],
)
def test_products_run_in_integers(nodes, shape, bias, vnni, tmp_path):
    model = with_weights(GRAPH.format(nodes=nodes, shape=shape, bias=bias))
    feeds = [random_feed(model, seed) for seed in range(4)]
    result = onnxq.quantize(
        model, preset="int8", target="ort-cpu", calibration=feeds, cpu_has_vnni=vnni
    )
    assert result.report.counts()["int8"] == 2
    found = products_of(result.model, tmp_path)
    assert len(found) == 2
    assert set(found) <= INTEGER
    for expected, rounded in zip(
        compute(model, **feeds[0]), compute(result.model, **feeds[0]), strict=True
    ):
        noise = float(((rounded - expected) ** 2).sum())
        assert 10 * np.log10(float((expected**2).sum()) / noise) > 25
