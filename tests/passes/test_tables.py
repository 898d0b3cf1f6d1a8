"""Embedding tables in codes: what is planned, and what the lowered models compute and store."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from graphs import compute, with_weights
from onnx_ir.passes import common

import onnxq
from onnxq import targets
from onnxq.errors import RecipeError, TargetError
from onnxq.onnxfile import stored_bytes
from onnxq.passes.lower import LowerOps
from onnxq.passes.plan import make_plan
from onnxq.passes.qdq.insert import InsertQdq
from onnxq.recipe import resolve

ROWS, LENGTH = 1024, 64
BODY = f"float[{LENGTH}, {LENGTH}] wm"
TABLE = (
    f"g (int64[2, n] i, float[{ROWS}, {LENGTH}] w) => (float[2, n, {LENGTH}] y) "
    "{ [look] e = Gather(w, i) y = Tanh(e) }"
)
TIED = (
    f"g (int64[2, n] i, float[{ROWS}, {LENGTH}] w, {BODY}) => (float[2, n, {ROWS}] y) "
    "{ [look] e = Gather(w, i) [body] h = MatMul(e, wm) t = Transpose(w) [head] y = MatMul(h, t) }"
)
TIED_GEMM = (
    f"g (int64[n] i, float[{ROWS}, {LENGTH}] w, {BODY}, float[{ROWS}] wb) => (float[n, {ROWS}] y) "
    "{ [look] e = Gather(w, i) [body] h = MatMul(e, wm) "
    "[head] y = Gemm <transB = 1> (h, w, wb) }"
)
PRESETS = [
    ("int8", "ort-cpu"),
    ("int8", "rtx-sm89"),
    ("fp8", "rtx-sm89"),
    ("int16-activations", "ort-cpu"),
    ("int8-dynamic", "ort-cpu"),
    ("int4", "ort-cpu"),
    ("int4", "rtx-sm89"),
]


def ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(-ROWS, ROWS, shape)


def plan(graph=TABLE, preset="int4", target="ort-cpu", recipe=None, **changes):
    recipe = resolve(preset, recipe, **changes)
    return make_plan(with_weights(graph), recipe, targets.get(target))


def decisions(found):
    return {op.node: str(op.weight) for op in found.ops}


def reason(found, node="look"):
    return next(kept.reason for kept in found.kept if kept.node == node)


def quantized(graph, preset, target, dtype="float", shape=(2, 9), recipe=None):
    """The float model and what `quantize` makes of it, with every op quantized."""
    opset = 23 if preset == "fp8" else 21
    model = with_weights(graph.replace("float", dtype), opset)
    given = {}
    if preset in ("int8", "fp8", "int16-activations"):
        given["calibration"] = [{"i": ids(*shape, seed=s)} for s in range(3)]
        recipe = {"activations": {"min_op_sqnr": None}, "recovery": None}
    return model, onnxq.quantize(model, preset=preset, target=target, recipe=recipe, **given)


def sqnr(expected, found):
    noise = ((expected.astype(float) - found) ** 2).mean()
    return 10 * np.log10((expected.astype(float) ** 2).mean() / noise)


def lowered(preset, target, dtype="float"):
    """The float model of a table alone, and the quantized one."""
    model, before = (with_weights(TABLE.replace("float", dtype), 21) for _ in range(2))
    found = make_plan(model, resolve(preset), targets.get(target))
    if found.recipe.is_static:
        assert InsertQdq(found, no_ranges)(model).modified
    else:
        assert LowerOps(found)(model).modified
    common.RemoveUnusedNodesPass()(model)
    return before, model


def no_ranges(name, spec):
    raise AssertionError(f"a table needs no range of {name}")


@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize(("preset", "target"), PRESETS)
def test_rows_are_what_their_codes_stand_for(preset, target, dtype):
    before, model = lowered(preset, target, dtype)
    feed = {"i": ids(2, 9, seed=5)}
    (expected,), (found,) = (compute(m, **feed) for m in (before, model))
    assert found.dtype == expected.dtype
    assert sqnr(expected, found) > (18 if preset == "int4" else 40)
    share = 0.17 if preset == "int4" else 0.28
    assert stored_bytes(model) < share * ROWS * LENGTH * 4


def test_onnx_runtime_gathers_codes_and_an_engine_is_left_to_do_so():
    ops = {each: [node.op_type for node in lowered(*each)[1].graph] for each in PRESETS}
    codes_first = ["Gather", "Gather", "Unsqueeze", "Cast", "Mul", "Tanh"]
    for preset in ("int8", "int16-activations", "int8-dynamic"):
        assert ops[preset, "ort-cpu"] == codes_first
    for preset in ("int8", "fp8", "int4"):
        assert ops[preset, "rtx-sm89"] == ["DequantizeLinear", "Gather", "Tanh"]
    assert ops["int4", "ort-cpu"] == ["GatherBlockQuantized", "Tanh"]


def test_activations_need_a_product():
    with pytest.raises(RecipeError, match="Nothing in the model can be quantized"):
        quantized(TABLE, "int8", "ort-cpu")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("length", "block"), [(64, 16), (96, 64), (72, 32), (128, 256), (68, 16)])
def test_gather_block_quantized_of_all_widths(bits, symmetric, length, block):
    """The last block may be shorter; the head of the same codes in float tells what they are."""
    graph = (
        f"g (int64[n] i, float[4096, {length}] w) => (float[n, {length}] y) {{ y = Gather(w, i) }}"
    )
    tables = {"bits": bits, "symmetric": symmetric, "block_size": block, "algorithm": "rtn"}
    model, result = quantized(graph, "int4", "ort-cpu", recipe={"tables": tables})
    weight = model.graph.initializers["w"].const_value.numpy()
    (found,) = compute(result.model, i=np.arange(4096))
    pad = -length % block
    blocks = np.pad(weight, ((0, 0), (0, pad))).reshape(4096, -1, block)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    step = (
        np.maximum(-low / 2 ** (bits - 1), high / (2 ** (bits - 1) - 1))
        if symmetric
        else ((high - low) / (2**bits - 1))
    )
    error = np.abs(np.pad(found - weight, ((0, 0), (0, pad))).reshape(blocks.shape))
    assert (error <= step[..., None] * 1.001).all()
    assert error.max() > 0


def test_which_gathers_are_tables():
    graph = f"""g (int64[3] i, float[{ROWS}, {LENGTH}] x, float[{ROWS}, {LENGTH}] w1,
        float[2, 384] w2, float[8, 64, 256] w3, int64[{ROWS}, {LENGTH}] w4) => (float[n] y) {{
        [computed] a = Gather(x, i) [columns] b = Gather <axis = 1> (w1, i)
        [small] c = Gather(w2, i) [cube] d = Gather(w3, i) [integers] e = Gather(w4, i)
        [negative] f = Gather <axis = -2> (w1, i)
        y = Concat <axis = 0> (a, b, c, d, e, f) }}"""
    found = plan(graph, "int8")
    assert "computed at run time" in reason(found, "computed")
    assert "gathers columns (axis 1)" in reason(found, "columns")
    assert "fewer than 65536 weights" in reason(found, "small")
    assert "3 dimensions" in reason(found, "cube")
    assert "its weight is int64" in reason(found, "integers")
    # The columns of the same table are read in float.
    assert "Gather 'columns' reads its table in float" in reason(found, "negative")


def test_a_table_is_no_product():
    found = plan(TIED, "int8")
    assert [op.node for op in found.products] == ["body", "head"]
    assert set(found.activations()) == {"e", "h"}
    assert plan(TIED, "int4", has_data=True).second_moments() == {"e": -1, "h": -1}


def test_tables_have_larger_blocks_and_bits_of_their_own():
    assert decisions(plan())["look"] == "uint4 asymmetric block 64(axis 1)"
    assert decisions(plan(recipe={"tables": {"bits": 8}}))["look"].startswith(
        "uint8 asymmetric blo"
    )
    rules = [{"match": "lo*", "weights": {"block_size": 16}}]
    assert decisions(plan(recipe={"rules": rules}))["look"].endswith("block 16(axis 1)")
    odd = TABLE.replace(f", {LENGTH}]", ", 65]")
    assert reason(plan(odd)) == "its rows of 65 codes fill no whole bytes"


def test_the_head_decides_for_the_table_that_is_its_weight():
    found = plan(TIED)
    assert (
        decisions(found)["look"] == decisions(found)["head"] == "uint4 asymmetric block 32(axis 1)"
    )
    assert {op.node: op.tied for op in found.ops} == {"look": True, "body": False, "head": True}
    eight = decisions(plan(TIED, head_bits=8))
    assert eight["look"] == eight["head"] == "uint8 asymmetric block 32(axis 1)"
    assert eight["body"] == "uint4 asymmetric block 32(axis 0)"
    with_data = {op.node: op.algorithm for op in plan(TIED, has_data=True).ops}
    assert with_data == dict.fromkeys(("look", "body", "head"), "gptq")


def test_a_table_stays_in_float_if_the_head_does():
    said = reason(plan(TIED, exclude=("head",)))
    assert said.startswith("MatMul 'head' reads its table in float")
    found = plan(TIED, "int8").leave_float({"head": "why"})
    assert [op.node for op in found.ops] == ["body"]
    assert reason(found) == said
    assert reason(found, "head") == "why"


def test_a_head_whose_codes_are_no_rows():
    """Blocks that end within a row of bytes, and zero points that Gather does not take."""
    ragged = plan(TIED.replace(f"{LENGTH}]", "72]"))
    assert not any(op.tied for op in ragged.ops)
    floats = plan(TIED, recipe={"weights": {"float_zero_points": True}})
    assert not any(op.tied for op in floats.ops)
    assert decisions(floats)["look"] == "uint4 asymmetric block 64(axis 1)"


@pytest.mark.parametrize(("preset", "target"), PRESETS)
@pytest.mark.parametrize("graph", [TIED, TIED_GEMM], ids=["matmul", "gemm"])
def test_a_tied_table_is_stored_once(graph, preset, target):
    shape = (9,) if graph is TIED_GEMM else (2, 9)
    model, result = quantized(graph, preset, target, shape=shape)
    tensors = [value.const_value for value in result.model.graph.initializers.values()]
    (codes,) = [tensor for tensor in tensors if tensor.nbytes >= ROWS * LENGTH // 2]
    assert codes.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    feed = {"i": ids(*shape, seed=5)}
    (expected,), (found,) = (compute(m, **feed) for m in (model, result.model))
    assert sqnr(expected, found) > {"int4": 14, "fp8": 25}.get(preset, 30)


@pytest.mark.parametrize(
    ("preset", "kernel"),
    [
        ("int8", "MatMulIntegerToFloat"),
        ("int8-dynamic", "DynamicQuantizeMatMul"),
        ("int4", "MatMulNBits"),
    ],
)
def test_a_tied_head_is_one_kernel_of_onnx_runtime(preset, kernel, tmp_path):
    _, result = quantized(TIED, preset, "ort-cpu")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(ir.to_proto(result.model).SerializeToString(), options)
    fused = [node.op_type for node in ir.load(tmp_path / "fused.onnx").graph]
    # Between two products whose activations are calibrated, ONNX Runtime stays in integers.
    assert fused.count(kernel) + fused.count("QLinearMatMul") == 2
    assert kernel in fused
    assert not {"Transpose", "Reshape", "DequantizeLinear"} & set(fused)


@pytest.mark.parametrize("preset", ["int8", "int4"])
def test_an_engine_holds_a_tied_table_once(preset, tmp_path):
    big = TIED.replace(str(ROWS), "16384")
    _, result = quantized(big, preset, "rtx-sm89")
    shapes = {"i": "2x1:2x9:2x32"}
    built = onnxq.build(result.model, tmp_path / "e", target="rtx-sm89", shapes=shapes)
    assert built.attestation.summary()["proven"] == 2
    codes = 16384 * LENGTH // (2 if preset == "int4" else 1)
    assert codes < (tmp_path / "e").stat().st_size < 2 * codes


def test_a_model_without_a_head_has_no_bits_for_it():
    with pytest.raises(RecipeError, match=r"no head.*--head-bits"):
        plan(TABLE, head_bits=8)
    with pytest.raises(TargetError, match="weights of 8 bits"):
        plan(TIED, target="rtx-sm89", head_bits=8)
    with pytest.raises(RecipeError, match="leave out bits"):
        plan(TIED, "int8", head_bits=8)


def test_a_budget_counts_a_tied_table_once():
    model = with_weights(TIED, 21)
    recipe = {"bits_per_weight": 5.0, "weights": {"bits": "auto"}}
    result = onnxq.quantize(model, preset="int4", target="ort-cpu", recipe=recipe)
    weights = {d.node: d.numbers.get("weight") for d in result.report.decisions}
    assert weights["look"] == weights["head"]
    quantized_bits = 8 * sum(
        value.const_value.nbytes for value in result.model.graph.initializers.values()
    )
    assert 4 < quantized_bits / (ROWS * LENGTH + LENGTH * LENGTH) < 5.02
