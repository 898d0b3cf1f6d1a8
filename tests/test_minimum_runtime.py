"""The oldest ONNX Runtime that runs a model, and models written for an older one."""

import re

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, with_weights

import onnxq
from onnxq import targets
from onnxq.errors import RecipeError, TargetError
from onnxq.inspection import inspect
from onnxq.minimum_runtime import minimum_runtime, parse_release

LANGUAGE = """
    g (int64[5] ids, float[1024, 64] wt, float[64, 96] w, float[96] wb, float[96, 48] wh)
        => (float[5, 48] y) {
        [embed] x = Gather(wt, ids)
        [up] h = Gemm(x, w, wb)
        [top] y = MatMul(h, wh)
    }
    """
TIED = """
    g (int64[5] ids, float[1024, 64] wt) => (float[5, 1024] y) {
        [embed] x = Gather(wt, ids)
        [turn] t = Transpose<perm = [1, 0]>(wt)
        [top] y = MatMul(x, t)
    }
    """
TOKENS = {"ids": np.array([3, 0, 499, 7, 7])}


def of(text, opset=17, ir_version=8):
    model = with_weights(text, opset)
    model.ir_version = ir_version
    return model


def int4(model, **options):
    return onnxq.quantize(model, preset="int4", target="ort-cpu", **options)


def ops(model):
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    ("ir_version", "opset", "release"),
    [(3, 11, "1.17"), (9, 20, "1.17"), (10, 20, "1.18"), (9, 21, "1.18"), (10, 22, "1.21"),
     (10, 23, "1.23"), (11, 20, "1.23"), (12, 24, "1.24"), (13, 26, "1.25"), (14, 21, "1.32"),
     (9, 28, "1.32")],
)  # fmt: skip
def test_the_format_and_the_opset_of_a_file(ir_version, opset, release):
    assert minimum_runtime(of(LANGUAGE, opset, ir_version)).release == release


@pytest.mark.parametrize(
    ("call", "types", "release", "because"),
    [
        ("MatMulNBits<bits = 4, K = 4, N = 4, block_size = 16>(x, x, x)", {}, "1.17", ""),
        ("MatMulNBits<bits = 4, K = 4, N = 4, block_size = 16>(x, x, x, z)",
         {"z": ir.DataType.FLOAT}, "1.18", "MatMulNBits of 4 bits with float zero points"),
        ("MatMulNBits<bits = 4, K = 4, N = 4, block_size = 16>(x, x, x, z)",
         {"z": ir.DataType.UINT8}, "1.17", ""),
        ("MatMulNBits<bits = 4, K = 4, N = 4, block_size = 16>(x, x, x, , , x)", {},
         "1.19", "6 inputs of MatMulNBits"),
        ("MatMulNBits<bits = 8, K = 4, N = 4, block_size = 16>(x, x, x)", {},
         "1.23", "MatMulNBits of 8 bits"),
        ("MatMulNBits<bits = 8, K = 4, N = 4, block_size = 16, accuracy_level = 4>(x, x, x)", {},
         "1.22", "MatMulNBits of 8 bits at accuracy_level 4"),
        ("MatMulNBits<bits = 2, K = 4, N = 4, block_size = 16>(x, x, x)", {},
         "1.24", "MatMulNBits of 2 bits"),
        ("MatMulNBits<bits = 2, K = 4, N = 4, block_size = 16>(x, x, x, z)",
         {"z": ir.DataType.FLOAT}, "1.27", "MatMulNBits of 2 bits with float zero points"),
        ("GatherBlockQuantized<block_size = 16>(z, x, x)", {"z": ir.DataType.UINT4},
         "1.20", "GatherBlockQuantized"),
        ("GatherBlockQuantized<block_size = 16>(z, x, x)", {"z": ir.DataType.UINT8},
         "1.23", "GatherBlockQuantized with bits 4 of bytes"),
        ("GatherBlockQuantized<block_size = 16, bits = 2>(z, x, x)", {"z": ir.DataType.UINT8},
         "1.27", "GatherBlockQuantized with bits 2 of bytes"),
        ("QMoE<k = 1, expert_weight_bits = 4>(x, x, x, x)", {}, "1.19",
         "expert_weight_bits of QMoE"),
        ("QMoE<k = 1, weights_prepacked = 0>(x, x, x, x)", {}, "1.28", "weights_prepacked of QMoE"),
        ("QMoE<k = 1, accuracy_level = 0>(x, x, x, x)", {}, "1.31", "accuracy_level of QMoE"),
        ("SwiGLU(x)", {}, "1.32", "SwiGLU"),
        ("FusedMatMul(x, x)", {}, "1.17", ""),
    ],
)  # fmt: skip
def test_ops_of_its_own(call, types, release, because):
    model = of(f"g (float[4, 4] x, float[4] z) => (y) {{ y = com.microsoft.{call} }}")
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.dtype = types.get(value.name, value.dtype)
    found = minimum_runtime(model)
    assert (found.release, found.because) == (release, because)


def test_a_block_size_of_standard_codes():
    text = "g (int4[32, 4] q, float[2, 4] s, float[1, 32] x) => (float[1, 4] y) "
    nodes = "{ w = DequantizeLinear<axis = 0, block_size = 16>(q, s) y = MatMul(x, w) }"
    found = minimum_runtime(of(text + nodes, 21, 10))
    assert (found.release, found.because) == ("1.19", "DequantizeLinear with a block size")


@pytest.mark.parametrize("wrong", ["new", "1", "1.x", "1.20-rc1", ""])
def test_no_release(wrong):
    with pytest.raises(RecipeError, match=f"'{re.escape(wrong)}' is no release"):
        parse_release(wrong)


def test_releases():
    assert parse_release("1.20") == parse_release("1.20.3") == (1, 20)
    assert parse_release("2.0") == (2, 0)
    with pytest.raises(RecipeError, match=r"the oldest that was tried is 1\.17"):
        parse_release("1.16.3")


def test_tables_of_4_bits_are_tensors_of_4_bits():
    for symmetric, dtype in ((True, ir.DataType.INT4), (False, ir.DataType.UINT4)):
        weights = {"symmetric": symmetric, "algorithm": "rtn", "block_size": 32}
        result = int4(of(LANGUAGE), recipe={"weights": weights, "tables": weights})
        table = next(n for n in result.model.graph if n.op_type == "GatherBlockQuantized")
        assert "bits" not in table.attributes
        assert table.inputs[0].dtype == dtype
        assert (len(table.inputs) == 4) != symmetric
        assert result.model.ir_version == 10
        assert result.report.needs["onnxruntime"] == "1.20"
        assert result.model.metadata_props["onnxq.needs_onnxruntime"] == "1.20"
        (found,), (exact,) = compute(result.model, **TOKENS), compute(of(LANGUAGE), **TOKENS)
        signal, noise = np.linalg.norm(exact), np.linalg.norm(found - exact)
        assert 10 < 20 * np.log10(signal / noise) < 30  # of weights in 4 bits


@pytest.mark.parametrize(
    ("release", "expected"),
    [("1.17", ["Gather", "MatMulNBits", "Add", "MatMulNBits"]),
     ("1.19", ["Gather", "MatMulNBits", "MatMulNBits"]),
     ("1.20", ["GatherBlockQuantized", "MatMulNBits", "MatMulNBits"])],
)  # fmt: skip
def test_what_is_written_for_an_older_release(release, expected):
    result = int4(of(LANGUAGE, ir_version=10), min_runtime=release)
    assert ops(result.model) == expected
    assert parse_release(result.report.needs["onnxruntime"]) <= parse_release(release)
    newest = int4(of(LANGUAGE), exclude=["embed"] if release != "1.20" else [])
    (found,), (same,) = compute(result.model, **TOKENS), compute(newest.model, **TOKENS)
    np.testing.assert_allclose(found, same, rtol=1e-5, atol=1e-5)
    if release != "1.20":
        (kept,) = [d for d in result.report.decisions if d.node == "embed"]
        assert kept.reason == "tables in codes came with ONNX Runtime 1.20"


def test_codes_of_a_head_that_a_table_cannot_read_are_stored_for_both():
    newest, older = int4(of(TIED)), int4(of(TIED), min_runtime="1.22")
    assert ops(newest.model) == ["Reshape", "GatherBlockQuantized", "MatMulNBits"]
    assert ops(older.model) == ["GatherBlockQuantized", "MatMulNBits"]
    assert newest.report.needs["onnxruntime"] == "1.23"
    assert older.report.needs["onnxruntime"] == "1.20"


@pytest.mark.parametrize(
    ("options", "model", "error", "message"),
    [
        ({"bits": 8}, LANGUAGE, TargetError,
         r"Target 'ort-cpu' in ONNX Runtime 1\.20 has no kernel for weights of 8 bits\..*4"),
        ({"bits": 2}, LANGUAGE, TargetError, "no kernel for weights of 2 bits"),
        ({"min_runtime": "1.16"}, LANGUAGE, RecipeError, "is not known"),
    ],
)  # fmt: skip
def test_what_an_older_release_has_not(options, model, error, message):
    with pytest.raises(error, match=message):
        int4(of(model), **{"min_runtime": "1.20"} | options)


def test_a_source_that_an_older_release_does_not_run():
    with pytest.raises(TargetError, match=r"1\.20 does not run .*: opset 22 came with 1\.21"):
        int4(of(LANGUAGE, 22, 10), min_runtime="1.20")
    assert int4(of(LANGUAGE, 21, 12), min_runtime="1.20").model.ir_version == 10


def test_widths_of_tables_follow_the_release():
    older, newest = int4(of(LANGUAGE), bits=2, min_runtime="1.24"), int4(of(LANGUAGE), bits=2)
    actions = [{d.node: d.action for d in each.report.decisions} for each in (older, newest)]
    assert actions[0] == {"embed": "int4", "up": "int2", "top": "int2"}
    assert actions[1] == {"embed": "int2", "up": "int2", "top": "int2"}
    assert older.report.needs["onnxruntime"] == "1.24"
    assert newest.report.needs["onnxruntime"] == "1.27"


def test_engines_need_no_release_of_onnx_runtime():
    target = targets.get("rtx-sm89")
    with pytest.raises(TargetError, match="does not run in ONNX Runtime"):
        target.on_runtime((1, 20))
    result = onnxq.quantize(of(LANGUAGE), preset="int4", target=target)
    assert result.report.needs == {}


def test_inspect_and_the_page_say_it(tmp_path):
    result = int4(of(LANGUAGE), bits=8)
    result.save(tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")["needs"]
    assert found == result.report.needs
    assert found["onnxruntime"] == "1.23"
    page = result.report.to_html()
    assert f"needs ONNX Runtime 1.23 or newer, because of {found['because']}" in page


def test_a_plan_for_an_older_release():
    plan = onnxq.plan(of(LANGUAGE), preset="int4", target="ort-cpu", min_runtime="1.18")
    assert [op.node for op in plan.ops] == ["up", "top"]


@pytest.mark.parametrize("release", ["1.33.0.dev20261120001", "1.33.0", "1.32.0+cu13"])
def test_a_nightly_runtime_is_no_older_one(release, monkeypatch):
    monkeypatch.setattr("onnxruntime.__version__", release)
    plan = onnxq.plan(of(LANGUAGE), preset="int4", target="ort-cpu", bits=2)
    assert plan.target.min_runtime is None
    assert len(plan.ops) == 3


def test_an_older_runtime_at_hand_gets_what_it_runs(monkeypatch):
    monkeypatch.setattr("onnxruntime.__version__", "1.23.2")
    with pytest.raises(
        TargetError, match=r"'ort-cpu' in ONNX Runtime 1\.23 has no kernel .* 2 bits"
    ):
        onnxq.plan(of(LANGUAGE), preset="int4", target="ort-cpu", bits=2)
