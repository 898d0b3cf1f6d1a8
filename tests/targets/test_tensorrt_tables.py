"""The tables of TensorRT-RTX, held against engines that it really builds."""

import dataclasses

import numpy as np
import pytest
from graphs import with_weights

import onnxq
from onnxq import targets
from onnxq.errors import EngineError, TargetError
from onnxq.targets import Yes
from onnxq.targets.base import OP_KINDS

GRAPHS = {
    "conv": "float[1, 32, 8, 8] x, float[32, 32, 3, 3] w) => (float[1, 32, 6, 6] y) "
    "{ [op] y = Conv(x, w) }",
    "large-conv": "float[1, 32, 8, 8] x, float[32, 32, 7, 7] w) => (float[1, 32, 2, 2] y) "
    "{ [op] y = Conv(x, w) }",
    "gemm": "float[8, 64] x, float[64, 32] w, float[32] wb) => (float[8, 32] y) "
    "{ [op] y = Gemm(x, w, wb) }",
    "matmul": "float[8, 64] x, float[64, 32] w) => (float[8, 32] y) { [op] y = MatMul(x, w) }",
    "conv-transpose": "float[1, 32, 8, 8] x, float[32, 32, 2, 2] w) => (float[1, 32, 16, 16] y) "
    "{ [op] y = ConvTranspose <strides = [2, 2]> (x, w) }",
    "fused-qkv": "float[1, 8, 64] x, float[64, 192] w, float[192] wb) => (float[1, 4, 8, 16] y) "
    "{ [op] p = MatMul(x, w) a = Add(p, wb) q, k, v = Split <axis = 2, num_outputs = 3> (a) "
    "heads = Constant <value_ints = [1, 8, 4, 16]> () "
    "q1 = Reshape(q, heads) k1 = Reshape(k, heads) v1 = Reshape(v, heads) "
    "q2 = Transpose <perm = [0, 2, 1, 3]> (q1) k2 = Transpose <perm = [0, 2, 3, 1]> (k1) "
    "v2 = Transpose <perm = [0, 2, 1, 3]> (v1) "
    "s = MatMul(q2, k2) m = Softmax <axis = -1> (s) y = MatMul(m, v2) }",
}


def quantized_anyway(preset, kind, target, tmp_path):
    """What becomes of the op in an engine, planned whatever the target's table says."""
    every_op = dict.fromkeys(OP_KINDS, Yes())
    permissive = dataclasses.replace(target.static(preset), ops=every_op)
    model = with_weights("g (" + GRAPHS[kind], opset=18)
    shape = model.graph.inputs[0].shape.numpy()
    feed = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    result = onnxq.quantize(
        model,
        preset=preset,
        target=dataclasses.replace(target, **{preset: permissive}),
        calibration=[feed],
    )
    assert result.report.counts()[preset] == 1
    engine = tmp_path / "engine"
    built = onnxq.build(result.model, engine, target=target, allow_fallback=True)
    (op,) = built.attestation.ops
    return op.verdict


@pytest.mark.parametrize("name", ["rtx-sm86", "rtx-sm89", "rtx-sm120"])
@pytest.mark.parametrize("kind", ["conv", "large-conv", "gemm", "matmul"])
def test_what_is_called_int8_runs_in_int8(tmp_path, kind, name):
    target = targets.get(name)
    assert target.static().ops[kind]
    assert quantized_anyway("int8", kind, target, tmp_path) == "proven"


@pytest.mark.parametrize("name", ["rtx-sm89", "rtx-sm120"])
@pytest.mark.parametrize("kind", ["conv", "gemm", "matmul"])
def test_what_is_called_fp8_runs_in_fp8(tmp_path, kind, name):
    target = targets.get(name)
    assert target.static("fp8").ops[kind]
    assert quantized_anyway("fp8", kind, target, tmp_path) == "proven"


@pytest.mark.parametrize("kind", ["conv-transpose", "large-conv", "fused-qkv"])
def test_what_is_called_float_in_fp8_does_not_run_in_fp8(tmp_path, kind):
    target = targets.get("rtx-sm89")
    assert not target.static("fp8").ops[kind]
    assert quantized_anyway("fp8", kind, target, tmp_path) == "float"


def test_fp8_is_refused_before_sm89_and_rightly_so(tmp_path):
    model = with_weights("g (" + GRAPHS["matmul"])
    feed = {"x": np.ones((8, 64), np.float32)}
    with pytest.raises(TargetError, match=r"rtx-sm86.*no fp8.*--preset int8"):
        onnxq.quantize(model, preset="fp8", target="rtx-sm86", calibration=[feed])
    result = onnxq.quantize(model, preset="fp8", target="rtx-sm89", calibration=[feed])
    with pytest.raises(EngineError, match="fp8"):
        onnxq.build(result.model, tmp_path / "engine", target="rtx-sm86")


@pytest.mark.parametrize("kind", ["conv-transpose", "fused-qkv"])
def test_what_is_called_emulated_does_not_run_in_int8(tmp_path, kind):
    target = targets.get("rtx-sm89")
    assert not target.static().ops[kind]
    assert quantized_anyway("int8", kind, target, tmp_path) != "proven"


@pytest.mark.parametrize("name", ["rtx-sm86", "rtx-sm89", "rtx-sm120"])
def test_int4_runs_fused_at_every_block_size(tmp_path, name):
    sizes = targets.get(name).weight_only().block_sizes
    weights = ", ".join(f"float[512, 64] w{size}" for size in sizes)
    outputs = ", ".join(f"float[8, 64] h{size}" for size in sizes)
    products = " ".join(f"[op{size}] h{size} = MatMul(x, w{size})" for size in sizes)
    model = with_weights(f"g (float[8, 512] x, {weights}) => ({outputs}) {{ {products} }}")
    rules = [{"match": f"op{size}", "weights": {"block_size": size}} for size in sizes]
    result = onnxq.quantize(model, preset="int4", recipe={"rules": rules}, target=name)
    attestation = onnxq.build(result.model, tmp_path / "engine", target=name).attestation
    assert attestation.summary()["proven"] == len(sizes) == 5


@pytest.mark.parametrize("name", ["rtx-sm86", "rtx-sm89", "rtx-sm120"])
def test_a_single_block_is_not_fused(tmp_path, name):
    target = targets.get(name)
    assert not target.weight_only().single_blocks
    permissive = dataclasses.replace(target.weight_only(), single_blocks=True)
    model = with_weights("g (" + GRAPHS["matmul"])
    recipe = {"weights": {"block_size": 64}}
    anyway = dataclasses.replace(target, int4=permissive)
    result = onnxq.quantize(model, preset="int4", recipe=recipe, target=anyway)
    built = onnxq.build(result.model, tmp_path / "engine", target=name, allow_fallback=True)
    assert built.attestation.summary()["float"] == 1


def test_sm75_is_refused_before_any_work_and_rightly_so(tmp_path):
    model = with_weights("g (" + GRAPHS["matmul"])
    with pytest.raises(TargetError, match="rtx-sm75"):
        onnxq.quantize(model, preset="int4", target="rtx-sm75")
    result = onnxq.quantize(model, preset="int4", target="rtx-sm89")
    with pytest.raises(EngineError):
        onnxq.build(result.model, tmp_path / "engine", target="rtx-sm75")
