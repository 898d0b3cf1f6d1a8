"""`convert` on files: from one form to the other and back, in little memory."""

import json
import subprocess
import sys

import data
import models
import numpy as np
import onnx
import pytest
from graphs import with_weights
from text_lines import EVALUATION

import onnxq
from onnxq import runtime
from onnxq.errors import ModelError, RecipeError
from onnxq.inspection import inspect


def contents(path):
    graph = onnx.load(path).graph
    weights = {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in graph.initializer}
    return sorted(node.op_type for node in graph.node), weights


def test_minilm_there_and_back(tmp_path):
    packed, plain, back = (tmp_path / f"{name}.onnx" for name in ("packed", "plain", "back"))
    onnxq.quantize(models.path("minilm"), preset="int4", target="ort-cpu").save(packed)
    onnxq.convert(packed, to="block-dequantize").save(plain, external_data=True)
    result = onnxq.convert(plain, to="matmul-nbits")
    assert (result.nodes, result.notes) == (37, ())
    result.save(back)
    assert contents(back) == contents(packed)
    assert inspect(back)["ops"] == inspect(packed)["ops"]
    assert inspect(plain)["target"] == "ort-cpu, converted to block-dequantize"
    feed = data.sentence_feed(data.sentences(1, EVALUATION)[0])
    one, two = (runtime.session(p, optimize=False).run(None, feed)[0] for p in (packed, plain))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-4)


MEMORY = r"""
import json, re, sys
import onnxq
source, output, form = sys.argv[1:]
result = onnxq.convert(source, to=form)
result.save(output)
peak = int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(json.dumps(peak))
"""


def test_no_more_than_a_weight_is_in_memory(tmp_path):
    source, plain, back = (tmp_path / f"{name}.onnx" for name in ("source", "plain", "back"))
    _write_large(source, 48, 4096)
    size = source.stat().st_size
    assert size > 500e6
    for given, output, form in (
        (source, plain, "block-dequantize"),
        (plain, back, "matmul-nbits"),
    ):
        command = [sys.executable, "-c", MEMORY, str(given), str(output), form]
        said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        assert json.loads(said) < 0.8 * size  # of which 250 MB are Python, ONNX Runtime and numba
    assert contents(back)[1] == contents(source)[1]


def _write_large(path, layers, side):
    helper, blocks = onnx.helper, side // 32
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 256, (side, blocks, 16), np.uint8)
    scales = generator.uniform(0.01, 0.02, (side, blocks)).astype(np.float32)
    nodes, weights = [], []
    for layer in range(layers):
        names = [f"w{layer}_codes", f"w{layer}_scales"]
        weights += map(onnx.numpy_helper.from_array, (codes, scales), names)
        attributes = {"K": side, "N": side, "bits": 4, "block_size": 32}
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [f"h{layer}", *names],
                [f"h{layer + 1}"],
                name=f"op{layer}",
                domain="com.microsoft",
                **attributes,
            )
        )
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, side])
        for name in ("h0", f"h{layers}")
    ]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], weights),
        opset_imports=imports,
        ir_version=10,
    )
    onnx.save(model, path)


def test_what_is_refused():
    model = with_weights(
        "g (float[3, 64] x, float[64, 8] w) => (float[3, 8] y) { y = MatMul(x, w) }"
    )
    with pytest.raises(RecipeError, match=r"no form 'matmulnbits'. Did you mean 'matmul-nbits'"):
        onnxq.convert(model, to="matmulnbits")
    for form, needed in {
        "matmul-nbits": "DequantizeLinear with a block size",
        "block-dequantize": "MatMulNBits or GatherBlockQuantized",
    }.items():
        with pytest.raises(ModelError, match=f"has no {needed}"):
            onnxq.convert(model, to=form)


def test_activations_in_bfloat16_are_checked_only(tmp_path):
    model = with_weights(
        "g (float[n, 64] x, float[64, 32] w) => (float[n, 32] y) { [op] y = MatMul(x, w) }",
        w=np.random.default_rng(0).normal(size=(64, 32)),
    )
    plain = onnxq.quantize(model, preset="int4", target="rtx-sm89", activation_dtype="bf16").model
    onnxq.convert(plain, to="matmul-nbits").save(tmp_path / "packed.onnx")
    (product,) = (n for n in onnx.load(tmp_path / "packed.onnx").graph.node if "Bits" in n.op_type)
    assert product.op_type == "MatMulNBits"
