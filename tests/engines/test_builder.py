"""Real engines, built by TensorRT-RTX for compute capability 8.9, and what is proven of them."""

import hashlib
import json

import numpy as np
import onnx_ir as ir
import pytest
from graphs import with_weights

import onnxq
from onnxq.engines import describe
from onnxq.errors import EngineError, FallbackError, MissingPackageError, TargetError

CONV = "g (float[1, 32, n, 16] x, float[32, 32, 3, 3] w) => (float[1, 32, m, 14] y)"
SCALES = {"w_s": np.float32(0.02), "w_z": np.int8(0)}
SHAPES = {"x": "1x32x16x16"}


def calibration():
    generator = np.random.default_rng(1)
    for _ in range(4):
        yield {"x": generator.normal(size=(1, 32, 16, 16)).astype(np.float32)}


@pytest.fixture
def conv():
    return with_weights(f"{CONV} {{ [conv] c = Conv(x, w) y = Relu(c) }}")


@pytest.fixture
def int8(conv, tmp_path):
    path = tmp_path / "conv.onnx"
    result = onnxq.quantize(conv, preset="int8", target="rtx-sm89", calibration=calibration)
    result.save(path)
    return path


def quantized_by_hand(scale_type, between="i = Identity(xd)"):
    """A conv whose input and weight come through Q/DQ, the way an exporter might write it."""
    return with_weights(
        f"g (float[1, 32, 16, 16] x, {scale_type} w_s, int8 w_z, int8[32, 32, 3, 3] w_q, "
        "float[32] w_qs) => (float[1, 32, 14, 14] y) { xq = QuantizeLinear(x, w_s, w_z) "
        f"xd = DequantizeLinear(xq, w_s, w_z) {between} "
        "w = DequantizeLinear <axis = 0> (w_q, w_qs) [conv] y = Conv(i, w) }",
        w_s=np.full(() if scale_type == "float" else (1,), 0.02, np.float32),
        w_z=np.zeros(() if scale_type == "float" else (1,), np.int8),
        w_q=np.arange(-100, -100 + 32 * 32 * 9, dtype=np.int64)
        .astype(np.int8)
        .reshape(32, 32, 3, 3),
        w_qs=np.full(32, 0.01, np.float32),
    )


def test_an_engine_and_its_manifest(int8, tmp_path):
    engine = tmp_path / "conv.engine"
    before = int8.read_bytes()
    built = onnxq.build(int8, engine, target="rtx-sm89", shapes=SHAPES)
    assert built.attestation.summary() == {"planned": 1, "proven": 1, "float": 0, "unproven": 0}
    manifest = describe(engine)
    assert manifest == json.loads(built.manifest.read_text())
    assert manifest["target"] == "rtx-sm89"
    assert manifest["backend"]["package"] == "tensorrt_rtx"
    version = manifest["backend"]["version"]
    assert manifest["attestation"]["by"] == f"tensorrt_rtx {version}"
    assert manifest["shapes"] == {"x": "1x32x16x16:1x32x16x16:1x32x16x16"}
    assert manifest["model"] == {
        "path": str(int8),
        "sha256": hashlib.sha256(before).hexdigest(),
        "bytes": len(before),
    }
    assert manifest["engine"]["sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert int8.read_bytes() == before
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "conv.engine",
        "conv.engine.json",
        "conv.onnx",
    ]


def test_two_builds_are_byte_identical(int8, tmp_path):
    engines = [tmp_path / "a.engine", tmp_path / "b.engine"]
    for engine in engines:
        onnxq.build(int8, engine, target="rtx-sm89", shapes=SHAPES)
    assert engines[0].read_bytes() == engines[1].read_bytes()


def test_a_model_in_memory(conv, tmp_path):
    built = onnxq.build(ir.to_proto(conv), tmp_path / "e", target="rtx-sm89", shapes=SHAPES)
    assert describe(built.engine)["model"]["path"] is None
    assert built.attestation.ops == ()


def test_float_is_proven_float(tmp_path):
    """The same conv by hand: with a scale of rank 0 it runs in int8, so the next test bites."""
    model = quantized_by_hand("float")
    built = onnxq.build(model, tmp_path / "e", target="rtx-sm89")
    assert built.attestation.summary()["proven"] == 1


@pytest.mark.parametrize(
    ("scale_type", "between"),
    [("float[1]", "i = Identity(xd)"), ("float", "i = Relu(xd)")],
    ids=["scale of shape [1]", "Relu after DequantizeLinear"],
)
def test_a_silent_fallback_is_an_error(tmp_path, scale_type, between):
    model = quantized_by_hand(scale_type, between)
    with pytest.raises(
        FallbackError, match=r"(?s)1 of 1 ops .*conv +Conv  int8 -> .*--exclude 'conv'"
    ) as failure:
        onnxq.build(model, tmp_path / "e", target="rtx-sm89")
    assert failure.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_fallback_that_is_allowed_is_written_down(tmp_path):
    model = quantized_by_hand("float[1]")
    built = onnxq.build(model, tmp_path / "e", target="rtx-sm89", allow_fallback=True)
    summary = describe(built.engine)["attestation"]["summary"]
    assert (summary["planned"], summary["proven"]) == (1, 0)


def test_hardware_that_emulates_int8_is_caught(int8, tmp_path):
    with pytest.raises((FallbackError, EngineError)):
        onnxq.build(int8, tmp_path / "e", target="rtx-sm75", shapes=SHAPES)
    assert [f.name for f in tmp_path.iterdir()] == ["conv.onnx"]


def test_refusals(conv, int8, tmp_path):
    with pytest.raises(TargetError, match=r"'ort-cpu' runs the ONNX file itself.*rtx-sm89"):
        onnxq.build(int8, tmp_path / "e", target="ort-cpu")
    with pytest.raises(MissingPackageError, match=r"onnxq\[tensorrt\]"):
        onnxq.build(int8, tmp_path / "e", target="trt-sm89", shapes=SHAPES)
    with pytest.raises(EngineError, match="--shape x=1x32x"):
        onnxq.build(int8, tmp_path / "e", target="rtx-sm89")
    cpu = onnxq.quantize(conv, preset="int8", target="ort-cpu", calibration=calibration)
    with pytest.raises(EngineError, match="Quantize the float model for this target"):
        onnxq.build(cpu.model, tmp_path / "e", target="rtx-sm89", shapes=SHAPES)
    assert [f.name for f in tmp_path.iterdir()] == ["conv.onnx"]


def test_contrib_ops_are_refused_with_a_hint(tmp_path):
    model = with_weights(
        "g (float[8, 64] x, float[64, 32] w) => (float[8, 32] y) { y = MatMul(x, w) }"
    )
    result = onnxq.quantize(model, preset="int4", target="ort-cpu")
    with pytest.raises(
        EngineError, match=r"MatMulNBits.*onnxq quantize --target\. Or.*onnxq convert"
    ):
        onnxq.build(result.model, tmp_path / "e", target="rtx-sm89")


def test_codes_that_were_converted(tmp_path):
    model = with_weights(
        "g (float[8, 64] x, float[64, 32] w) => (float[8, 32] y) { y = MatMul(x, w) }"
    )
    recipe = {"weights": {"symmetric": True}}
    packed = onnxq.quantize(model, preset="int4", target="ort-cpu", recipe=recipe)
    blocks = onnxq.convert(packed.model, to="block-dequantize")
    built = onnxq.build(blocks.model, tmp_path / "e", target="rtx-sm89")
    assert built.attestation.summary() == {"planned": 1, "proven": 1, "float": 0, "unproven": 0}


def test_a_builder_that_dies_takes_nothing_with_it(int8, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(EngineError, match="tensorrt_rtx ended with exit code 1"):
        onnxq.build(int8, tmp_path / "e", target="rtx-sm89", shapes=SHAPES)
    assert [f.name for f in tmp_path.iterdir()] == ["conv.onnx"]


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_zero_points_in_constant_nodes(domain, tmp_path):
    """As TorchScript exports of fake quantization have them."""
    model = quantized_by_hand("float")
    value = model.graph.initializers.pop("w_z")
    constant = ir.node("Constant", [], {"value": value.const_value}, name="zero")
    constant.outputs[0].name = "zero_point"
    value.replace_all_uses_with(constant.outputs[0])
    model.graph.insert_before(model.graph[0], constant)
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) > 2:
            node.domain = domain
    if domain:
        model.opset_imports[domain] = 1
    onnxq.save(model, tmp_path / "qat.onnx")
    built = onnxq.build(tmp_path / "qat.onnx", tmp_path / "e", target="rtx-sm89")
    assert built.attestation.summary() == {"planned": 1, "proven": 1, "float": 0, "unproven": 0}
