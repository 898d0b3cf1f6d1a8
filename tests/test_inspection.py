"""What a file says of itself."""

import numpy as np
import pytest
from graphs import with_weights

import onnxq
from onnxq.errors import EngineError, ModelError
from onnxq.inspection import inspect

GRAPH = (
    "g (float[4, 64] x, float[64, 64] w1, float[64, 32] w2) => (float[4, 32] y) "
    "{ [one] h = MatMul(x, w1) [relu] r = Relu(h) [two] y = MatMul(r, w2) }"
)
FEED = {"x": np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)}


def rows(found):
    return {(op["op_type"], op["precision"]): (op["count"], op["reason"]) for op in found["ops"]}


QUANTIZED = {
    "int8": ("MatMul", "int8"),
    "int8-dynamic": ("MatMulInteger", "int8"),
    "int4": ("MatMulNBits", "int4"),
}


@pytest.mark.parametrize("preset", QUANTIZED)
def test_a_quantized_model(tmp_path, preset):
    data = {"calibration": [FEED]} if preset == "int8" else {}
    result = onnxq.quantize(
        with_weights(GRAPH), preset=preset, target="ort-cpu", exclude=["two"], **data
    )
    result.save(tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert (found["target"], found["preset"]) == ("ort-cpu", preset)
    assert found["file_bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert found["weight_bytes"] == sum(found["weights"].values())
    told = rows(found)
    assert told[QUANTIZED[preset]] == (1, "")
    assert told["MatMul", "float"] == (1, "excluded by 'two'")
    assert told["Relu", "float"] == (1, "no weights to multiply by")
    around = {"Cast", "Mul"} if preset == "int8-dynamic" else set()
    assert {op for op, _ in told} == {"MatMul", "Relu", QUANTIZED[preset][0]} | around


def test_a_float_model(tmp_path):
    onnxq.save(with_weights(GRAPH), tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert (found["target"], found["preset"]) == ("not quantized by onnxq", "none")
    assert found["weights"] == {"float": 64 * 64 * 4 + 64 * 32 * 4}


def test_an_engine(tmp_path):
    result = onnxq.quantize(
        with_weights(GRAPH), preset="int8", target="rtx-sm89", calibration=[FEED]
    )
    onnxq.build(result.model, tmp_path / "e.engine", target="rtx-sm89")
    found = inspect(tmp_path / "e.engine")
    assert found["attestation"]["summary"]["proven"] == 2
    (tmp_path / "e.engine").write_bytes(b"other")
    with pytest.raises(EngineError, match="SHA-256 differs"):
        inspect(tmp_path / "e.engine")


def test_neither_model_nor_engine(tmp_path):
    (tmp_path / "x").write_text("hello")
    with pytest.raises(ModelError, match="is not an ONNX model"):
        inspect(tmp_path / "x")
