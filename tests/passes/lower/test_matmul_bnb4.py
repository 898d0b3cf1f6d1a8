"""Weights in nf4: what ONNX Runtime computes is what the codes stand for."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights
from grids import expanded

import onnxq
from onnxq import formats, targets
from onnxq.errors import ModelError, TargetError
from onnxq.passes.forms import ToBlockDequantize
from onnxq.passes.lower import LowerOps
from onnxq.passes.plan import make_plan
from onnxq.passes.weights import get
from onnxq.recipe import resolve

FORMS = {
    "matmul": ("[op] y = MatMul(x, w)", "K, N"),
    "transpose": ("t = Transpose(w) [op] y = MatMul(x, t)", "N, K"),
    "gemm-transb": ("[op] y = Gemm <transB = 1> (x, w)", "N, K"),
    "gemm-bias": ("[op] y = Gemm(x, w, b)", "K, N"),
}


def graph(form, rows, dtype="float"):
    nodes, shape = FORMS[form]
    shape = shape.replace("K", str(rows)).replace("N", "24")
    text = (
        f"g (float[3, {rows}] x, float[{shape}] w, float[24] b) => (float[3, 24] y) {{ {nodes} }}"
    )
    return text.replace("float", dtype)


def planned(model, target="ort-cpu", **weights):
    return make_plan(
        model, resolve("int4", {"weights": {"bits": "nf4"} | weights}), targets.get(target)
    )


def replace_weight(model, plan):
    (op,) = plan.ops
    tensor = model.graph.initializers["w"].const_value
    quantized = get(op.algorithm)(tensor.numpy(), op.weight)
    scale = expanded(quantized.params.scale, quantized.codes.shape, op.weight.granularity)
    found = formats.get("nf4").values(quantized.codes) * scale
    model.graph.initializers["w"].const_value = ir.tensor(found.astype(tensor.dtype.numpy()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize("algorithm", ["rtn", "auto"])
@pytest.mark.parametrize(("rows", "block"), [(64, 32), (48, 16), (512, 256)])
def test_the_product_in_onnxruntime(form, dtype, algorithm, rows, block):
    text = graph(form, rows, dtype)
    float_model, model = with_weights(text), with_weights(text)
    feed = random_feed(model)
    plan = planned(model, block_size=block, algorithm=algorithm)
    assert LowerOps(plan)(model).modified
    replace_weight(float_model, plan)
    tolerance = 5e-5 if dtype == "float" else 2e-2
    np.testing.assert_allclose(
        compute(model, **feed)[0], compute(float_model, **feed)[0], rtol=tolerance, atol=tolerance
    )
    assert [node.op_type for node in model.graph].count("MatMulBnb4") == 1
    assert plan.ops[0].precision == "nf4"


@pytest.mark.parametrize(
    ("target", "bits", "slow"),
    [("ort-cpu", "nf4", True), ("ort-cpu", 4, False), ("ort-cuda", "nf4", False)],
)
def test_the_report_says_where_it_is_slow(target, bits, slow):
    result = onnxq.quantize(
        with_weights(graph("matmul", 64)), preset="int4", bits=bits, target=target
    )
    assert (
        any("makes floats of nf4 weights in every run" in w for w in result.report.warnings) == slow
    )


def test_bytes():
    model = with_weights(graph("matmul", 64))
    LowerOps(planned(model, block_size=64))(model)
    sizes = {name: value.const_value.nbytes for name, value in model.graph.initializers.items()}
    assert (sizes["w_codes"], sizes["w_absmax"]) == (64 * 24 // 2, 4 * 24)


@pytest.mark.parametrize("target", ["rtx-sm89", "trt-sm100"])
def test_tensorrt_has_no_codebooks(target):
    with pytest.raises(TargetError, match="no kernel for weights in nf4, a codebook of 16 floats"):
        planned(with_weights(graph("matmul", 64)), target)


@pytest.mark.parametrize(
    ("rows", "block", "reason"),
    [(70, 32, "no multiple of the block size 32"), (64, None, "no block as long as a column")],
)
def test_blocks_must_fill_the_columns(rows, block, reason):
    plan = planned(with_weights(graph("matmul", rows)), block_size=block)
    assert not plan.ops
    assert reason in next(kept.reason for kept in plan.kept if kept.node == "op")


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cuda"])
def test_tables_have_integers_of_as_many_bits(target):
    model = with_weights(
        "g (int64[5] ids, float[2048, 64] w) => (float[5, 2048] y) "
        "{ [table] h = Gather(w, ids) t = Transpose(w) [op] y = MatMul(h, t) }"
    )
    plan = planned(model, target)
    found = {op.node: op.weight.format for op in plan.ops}
    assert found == {"table": "uint4", "op": "nf4"}
    assert not any(op.tied for op in plan.ops)


def test_it_has_no_other_form():
    model = with_weights(graph("matmul", 64))
    LowerOps(planned(model))(model)
    with pytest.raises(ModelError, match="'op_MatMulBnb4' cannot be converted: its codes stand"):
        ToBlockDequantize()(model)
