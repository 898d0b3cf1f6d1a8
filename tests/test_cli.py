"""The command line: what it does, and what it says when it cannot."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import with_weights

import onnxq
from onnxq import cli, io

GRAPH = """
g (float[batch, 32, 8, 8] image, float[batch, 4] extra,
   float[32, 32, 3, 3] w_conv, float[32] wb_conv, float[10, 36] w_head, float[10] wb_head)
=> (float[batch, 10] scores)
{
    [conv] c = Conv <pads = [1, 1, 1, 1]> (image, w_conv, wb_conv)
    r = Relu(c)
    p = GlobalAveragePool(r)
    f = Flatten(p)
    j = Concat <axis = 1> (f, extra)
    [head] scores = Gemm <transB = 1> (j, w_head, wb_head)
}
"""


def feed(**changes):
    generator = np.random.default_rng(len(changes))
    whole = {
        "image": generator.normal(size=(2, 32, 8, 8)).astype(np.float32),
        "extra": generator.normal(size=(2, 4)).astype(np.float32),
    }
    return {name: array for name, array in (whole | changes).items() if array is not None}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with model.onnx and the calibration folder data."""
    onnxq.save(with_weights(GRAPH), tmp_path / "model.onnx")
    (tmp_path / "data").mkdir()
    for index in range(4):
        np.savez(tmp_path / f"data/{index}.npz", **feed())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line; gives exit code, standard output and standard error."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["onnxq", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def int8(*more, model="model.onnx", output="out.onnx", target="ort-cpu", data="data"):
    given = () if data is None else ("--calibration", data)
    return ("quantize", model, "-o", output, "--preset", "int8", "--target", target, *given, *more)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_quantize_inspect_compare(folder, run):
    code, out, err = run(*int8("--report", "report.json"))
    assert (code, err) == (0, "")
    assert "out.onnx: 4 float, 2 int8" in out
    report = json.loads((folder / "report.json").read_text())
    assert report["counts"] == {"int8": 2, "float": 4}
    assert {d["node"] for d in report["decisions"]} >= {"conv", "head"}
    assert all(d["reason"] for d in report["decisions"])

    code, out, err = run("inspect", "out.onnx")
    assert code == 0
    assert "target: ort-cpu" in out
    assert "Conv" in out

    code, out, _ = run("compare", "model.onnx", "out.onnx", "--data", "data", "--json")
    compared = json.loads(out)
    assert code == 0
    assert compared["outputs"][0]["sqnr_db"] > 20


def test_compare_past_a_threshold(folder, run):
    run(*int8())
    arguments = ("compare", "model.onnx", "out.onnx", "--data", "data", "--min-sqnr")
    assert run(*arguments, "10")[0] == 0
    code, _, err = run(*arguments, "90")
    assert code == 1
    assert "90.00 dB was asked for" in err


def test_statistics_serve_several_targets(folder, run):
    code, out, _ = run("calibrate", "model.onnx", "-o", "stats", "--calibration", "data")
    assert code == 0
    assert "4 samples" in out
    for target in ("ort-cpu", "rtx-sm89"):
        code, _, err = run(*int8("--stats", "stats", target=target, output=f"{target}.onnx"))
        assert (code, err) == (0, "")
        assert run(*int8(target=target, output="direct.onnx"))[0] == 0
        assert (folder / f"{target}.onnx").read_bytes() == (folder / "direct.onnx").read_bytes()


def test_shards_merge(folder, run):
    command = ("calibrate", "model.onnx", "--calibration", "data", "-o")
    assert run(*command, "whole")[0] == 0
    for index in (1, 2):
        assert run(*command, f"part{index}", "--shard", f"{index}/2")[0] == 0
    code, out, _ = run("calibrate", "--merge", "part1", "part2", "-o", "merged")
    assert code == 0
    assert "4 samples" in out
    run(*int8("--stats", "whole", output="a.onnx"))
    run(*int8("--stats", "merged", output="b.onnx"))
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()
    assert not list(folder.glob("*.partial"))


def test_resume_goes_on_with_the_partial_file(folder, run):
    run("calibrate", "model.onnx", "--calibration", "data", "-o", "whole")
    (folder / "again.partial").write_bytes((folder / "whole").read_bytes())
    command = ("calibrate", "model.onnx", "--calibration", "data", "-o", "again")
    assert run(*command, "--resume")[0] == 0
    assert (folder / "again").read_bytes() == (folder / "whole").read_bytes()
    assert not (folder / "again.partial").exists()
    (folder / "again.partial").write_text("no statistics")
    assert run(*command)[0] == 0  # begins anew


def test_a_memory_limit_changes_nothing_but_memory(folder, run):
    for name, options in (("a", ()), ("b", ("--memory-limit", "17 kB"))):
        calibrate = ("calibrate", "model.onnx", "--calibration", "data", "-o", f"{name}.stats")
        assert run(*calibrate, *options)[0] == 0
        assert run(*int8(*options, output=f"{name}.onnx"))[0] == 0
    assert (folder / "a.stats").read_bytes() == (folder / "b.stats").read_bytes()
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_a_tensorrt_cache(folder, run):
    (folder / "cache").write_text("TRT-8601-EntropyCalibration2\nimage: 3c010a14\nnope: 3c010a14\n")
    command = ("calibrate", "model.onnx", "-o", "stats", "--from-tensorrt-cache", "cache")
    code, _, err = run(*command)
    assert code == 0
    assert "not in the model: nope" in err
    assert "not in the cache: " in err
    assert run(*int8("--stats", "stats", data=None, target="rtx-sm89"))[0] == 0


def test_the_plan_is_printed_and_nothing_written(folder, run):
    before = files(folder)
    command = ("quantize", "model.onnx", "--preset", "int8", "--target", "ort-cpu", "--plan")
    command = (*command, "--cpu-has-vnni")
    code, out, _ = run(*command)
    assert code == 0
    assert out.startswith("runs on: CPUs with VNNI")
    assert "int8 symmetric per-channel(axis 0)" in out
    code, out, _ = run(*command, "--json")
    rows = {row["node"]: row for row in json.loads(out)}
    assert rows["conv"]["to"] == "int8"
    assert rows["head"]["how or why"].startswith("weight int8")
    assert files(folder) == before


def test_a_model_says_which_cpus_it_is_for(folder, run):
    for option, words in (("--cpu-has-vnni", "CPUs with VNNI"), ("--no-cpu-has-vnni", "any CPU")):
        code, out, err = run(*int8(option, "--report", "report.html"))
        assert (code, err) == (0, "")
        assert f"runs on: {words}" in out
        assert f"runs on: {words}" in run("inspect", "out.onnx")[1]
        assert f"It runs on {words}" in (folder / "report.html").read_text()
    code, _, err = run(*int8("--cpu-has-vnni", target="rtx-sm89"))
    assert code == 2
    assert "Preset int8 for 'rtx-sm89' is the same for CPUs with VNNI and without" in err
    run(*int8(target="rtx-sm89"))
    assert "runs on" not in run("inspect", "out.onnx")[1]


def test_statistics_without_data_leave_the_ops_unmeasured(folder, run):
    run("calibrate", "model.onnx", "-o", "stats", "--calibration", "data")
    code, _, err = run(*int8("--stats", "stats", data=None))
    assert code == 0
    assert err.startswith("warning: The ops were not measured")


def test_statistics_of_another_model_are_refused(folder, run):
    run("calibrate", "model.onnx", "-o", "stats", "--calibration", "data")
    other = io.load("model.onnx")
    other.graph.initializers["wb_conv"].const_value = ir.tensor(np.ones(32, np.float32))
    onnxq.save(other, "other.onnx")
    code, _, err = run(*int8("--stats", "stats", data=None, model="other.onnx"))
    assert code == 2
    assert "another model" in err or "fingerprint" in err


def test_exclude_and_recipe(folder, run):
    (folder / "recipe.yaml").write_text("preset: int8\nrules: [{match: head, keep_float: true}]\n")
    code, out, _ = run(*int8("--recipe", "recipe.yaml", "--json"))
    by_node = {d["node"]: d for d in json.loads(out)["decisions"]}
    assert code == 0
    assert (by_node["head"]["action"], by_node["head"]["reason"]) == ("float", "excluded by 'head'")
    code, out, _ = run(*int8("--exclude", "con*", "--json"))
    by_node = {d["node"]: d["action"] for d in json.loads(out)["decisions"]}
    assert (by_node["conv"], by_node["head"]) == ("float", "int8")


def test_random_data_warns(folder, run):
    code, _, err = run(*int8("--report", "r.html", data="random:4"))
    assert code == 0
    assert "warning: Calibrated on random data" in err
    assert "Calibrated on random data" in (folder / "r.html").read_text()


def test_a_function_as_data(folder, run):
    (folder / "feeds.py").write_text(
        "import numpy as np\n"
        "def some():\n"
        "    for _ in range(3):\n"
        "        yield {'image': np.ones((1, 32, 8, 8), np.float32),\n"
        "               'extra': np.ones((1, 4), np.float32)}\n"
    )
    code, out, _ = run(*int8("--json", data="feeds.py:some"))
    assert code == 0
    assert json.loads(out)["calibration"]["samples"] == 3


def test_activations_in_half_the_bytes(folder, run):
    given = ("quantize", "model.onnx", "--preset", "int4", "--target", "ort-cpu")
    code, _, _ = run(*given, "-o", "q.onnx", "--activation-dtype", "fp16")
    assert code == 0
    scales = [t for t in onnx.load("q.onnx").graph.initializer if "scale" in t.name]
    assert [tensor.data_type for tensor in scales] == [onnx.TensorProto.FLOAT16]
    code, _, error = run(*given, "-o", "q.onnx", "--activation-dtype", "bf16")
    assert code == 2
    assert "no bfloat16 kernels" in error


def test_the_plan_is_what_is_done_with_data_and_another_type_of_activations(folder, run):
    onnxq.save(
        with_weights(
            "g (float[n, 64] x, float[64, 64] w, float[64, 64] v) => (float[n, 64] y) "
            "{ [one] a = MatMul(x, w) [soft] b = Softmax(a) [two] y = MatMul(b, v) }"
        ),
        folder / "two.onnx",
    )
    given = ("quantize", "two.onnx", "--preset", "int4", "--target", "ort-cpu", "--json")
    given = (*given, "--activation-dtype", "fp16", "--calibration", "random:2")
    rows = {row["node"]: row for row in json.loads(run(*given, "--plan")[1])}
    done = {each["node"]: each for each in json.loads(run(*given, "-o", "q.onnx")[1])["decisions"]}
    assert rows["soft"]["how or why"] == done["soft"]["reason"]
    assert "computed in float32" in rows["soft"]["how or why"]
    assert rows["one"]["how or why"].endswith(" by gptq")
    code, _, err = run(*given, "--plan", "--bits", "nf4")
    assert code == 2
    assert "gptq finds no codes of nf4" in err


def test_a_conv_as_matmul(folder, run):
    options = ["--preset", "int4", "--target", "ort-cpu", "--conv-as-matmul", "--json"]
    onnxq.save(
        with_weights(
            "g (float[1, 64, 3, 3] x, float[64, 64, 1, 1] w) => (float[1, 64, 3, 3] y) "
            "{ [c] y = Conv(x, w) }"
        ),
        folder / "conv.onnx",
    )
    code, out, _ = run("quantize", "conv.onnx", "--plan", *options)
    assert code == 0
    assert [row["op"] for row in json.loads(out) if row["to"] == "int4"] == ["MatMul"]
    code, out, _ = run("quantize", "conv.onnx", "-o", "q.onnx", *options)
    assert code == 0
    assert json.loads(out)["recipe"]["conv_as_matmul"]
    code, _, err = run("quantize", "conv.onnx", "-o", "q.onnx", *options[:4])
    assert code == 2
    assert "with --conv-as-matmul" in err


def test_rotation(folder, run):
    block = """
    g (float[n, 64] x, float[64, 64] w_in, float[64] w_gain, float[64, 64] w_out) => (float[n, m] y)
    {
        [in] h = MatMul(x, w_in)
        normal = RMSNormalization(h, w_gain)
        [out] y = MatMul(normal, w_out)
    }
    """
    onnxq.save(with_weights(block, 23), folder / "block.onnx")
    given = ("-o", "q.onnx", "--preset", "int4", "--target", "ort-cpu")
    code, out, _ = run("quantize", "block.onnx", *given, "--rotate")
    assert code == 0
    told = next(line for line in out.splitlines() if line.startswith("rotated"))
    assert "64 channels of the residual stream" in told
    code, out, _ = run("quantize", "block.onnx", *given, "--rotate", "--plan")
    assert code == 0
    assert told in out.splitlines()
    for stop in ([], ["--plan"]):
        code, out, _ = run("quantize", "block.onnx", *given, *stop)
        assert code == 0
        assert "rotated" not in out
    code, _, error = run("quantize", "model.onnx", *given, "--rotate")
    assert code == 2
    assert "cannot be rotated: it has no residual stream" in error


def test_int4_and_external_data(folder, run):
    code, _, _ = run(
        *("quantize", "model.onnx", "-o", "q.onnx", "--preset", "int4", "--target", "ort-cpu"),
        "--external-data",
    )
    assert code == 0
    assert (folder / "q.onnx.data").is_file()
    assert [n.op_type for n in onnx.load("q.onnx").graph.node].count("MatMulNBits") == 1


def test_threads_of_blas_are_told_not_to_spin(run, monkeypatch):
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "10")
    run("targets")
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "10"
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT")
    run("targets")
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "4"


def test_weights_may_wait_to_be_written(folder, run):
    for name, options in (("a", ()), ("b", ("--memory-limit", "1GB"))):
        given = ("quantize", "model.onnx", "-o", f"{name}.onnx", "--preset", "int4")
        assert run(*given, "--target", "ort-cpu", *options)[0] == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()
    code, _, error = run(*given, "--target", "ort-cpu", "--memory-limit", "none")
    assert code == 2
    assert "The memory limit is 'none'." in error


def test_weights_in_shards(folder, run):
    graph = "g (float[n, 512] x, float[512, 512] w, float[512, 512] w2) => (float[n, 512] y) "
    model = with_weights(graph + "{ h = MatMul(x, w) y = MatMul(h, w2) }")
    onnxq.save(model, "two.onnx")
    given = ("quantize", "two.onnx", "-o", "q.onnx", "--preset", "int4", "--target", "ort-cpu")
    assert run(*given, "--shard-size", "200kB")[0] == 0
    parts = ["q.onnx.data-00001-of-00002", "q.onnx.data-00002-of-00002"]
    assert sorted(file.name for file in folder.glob("q.onnx*")) == ["q.onnx", *parts]
    convert = ("convert", "q.onnx", "-o", "c.onnx", "--to", "block-dequantize")
    assert run(*convert, "--shard-size", "200kB")[0] == 0
    assert len(list(folder.glob("c.onnx.data-*"))) == 2
    for command in (given, convert):
        code, _, error = run(*command, "--shard-size", "0")
        assert code == 2
        assert "The size of a shard is '0'." in error


def test_build(folder, run):
    run(*int8(target="rtx-sm89"))
    shapes = ("--shape", "image=1x32x8x8:2x32x8x8:4x32x8x8", "--shape", "extra=1x4:2x4:4x4")
    code, out, err = run("build", "out.onnx", "-o", "m.engine", "--target", "rtx-sm89", *shapes)
    assert (code, err) == (0, "")
    assert "proven" in out
    code, out, _ = run("inspect", "m.engine", "--json")
    summary = json.loads(out)["attestation"]["summary"]
    assert summary["planned"] == summary["proven"] > 0


def test_an_engine_that_falls_back_exits_with_3(folder, run):
    model = with_weights(
        "g (float[1, 32, 8, 8] x, float[1] w_s, int8[1] w_z, int8[32, 32, 3, 3] w_q, "
        "float[32] w_qs) => (float[1, 32, 6, 6] y) { q = QuantizeLinear(x, w_s, w_z) "
        "d = DequantizeLinear(q, w_s, w_z) w = DequantizeLinear <axis = 0> (w_q, w_qs) "
        "[op] y = Conv(d, w) }",
        w_s=np.array([0.1]),
        w_q=np.arange(32 * 32 * 9).astype(np.int8).reshape(32, 32, 3, 3),
        w_qs=np.full(32, 0.1),
    )
    onnxq.save(model, "qdq.onnx")
    code, out, err = run("build", "qdq.onnx", "-o", "m.engine", "--target", "rtx-sm89")
    assert (code, out) == (3, "")
    assert "op  Conv  int8 -> float" in err
    assert sorted(f.name for f in folder.iterdir()) == ["data", "model.onnx", "qdq.onnx"]
    arguments = ("build", "qdq.onnx", "-o", "m.engine", "--target", "rtx-sm89", "--allow-fallback")
    assert run(*arguments)[0] == 0


def test_targets(run):
    code, out, _ = run("targets")
    assert code == 0
    assert "rtx-sm89" in out
    code, out, _ = run("targets", "--json")
    assert {"ort-cpu", "trt-sm90"} <= {row["target"] for row in json.loads(out)}


def broken_model(folder, kind):
    whole = (folder / "model.onnx").read_bytes()
    match kind:
        case "truncated":
            (folder / "bad.onnx").write_bytes(whole[: len(whole) // 2])
        case "text":
            (folder / "bad.onnx").write_text("This is not a model, it is a letter.\n" * 40)
        case "empty":
            (folder / "bad.onnx").write_bytes(b"")
        case "missing data":
            onnxq.save(io.load("model.onnx"), "bad.onnx", external_data=True)
            (folder / "bad.onnx.data").unlink()
        case "short data":
            onnxq.save(io.load("model.onnx"), "bad.onnx", external_data=True)
            (folder / "bad.onnx.data").write_bytes(b"short")
    return "bad.onnx"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated", "not an ONNX model, or it is cut short"),
        ("text", "not an ONNX model"),
        ("empty", "holds no ONNX graph"),
        ("missing data", "does not exist. Copy it to"),
        ("short data", "ends at byte 5"),
        ("no such file", "There is no file 'bad.onnx'"),
    ],
)
@pytest.mark.parametrize("command", ["quantize", "calibrate", "build", "inspect"])
def test_a_bad_model(folder, run, kind, says, command):
    model = broken_model(folder, kind)
    before = files(folder)
    code, out, err = run(
        *{
            "quantize": int8(model=model),
            "calibrate": ("calibrate", model, "-o", "stats", "--calibration", "data"),
            "build": ("build", model, "-o", "e", "--target", "rtx-sm89"),
            "inspect": ("inspect", model),
        }[command]
    )
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1
    assert files(folder) == before


BAD_FEEDS = {
    "wrong name": (feed(picture=np.ones(1, np.float32)), "'picture'"),
    "missing name": (feed(extra=None), "'extra'"),
    "wrong dtype": (feed(extra=np.ones((2, 4), np.float64)), "float64"),
    "wrong rank": (feed(extra=np.ones((2, 4, 1), np.float32)), "'extra'"),
    "wrong size": (feed(extra=np.ones((2, 5), np.float32)), "'extra'"),
    "NaN": (feed(extra=np.full((2, 4), np.nan, np.float32)), "NaN"),
    "infinity": (feed(extra=np.full((2, 4), np.inf, np.float32)), "inf"),
}


@pytest.mark.parametrize("kind", BAD_FEEDS)
def test_a_bad_feed(folder, run, kind):
    bad, says = BAD_FEEDS[kind]
    np.savez(folder / "data/5.npz", **bad)
    before = files(folder)
    code, out, err = run(*int8())
    assert (code, out) == (2, "")
    assert says in err
    assert "5.npz" in err
    assert err.count("\n") == 1
    assert files(folder) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (int8(target="rtx-sm98"), "no target 'rtx-sm98'. Did you mean 'rtx-sm89'?"),
        (int8(target="ort-cuda"), "Target 'ort-cuda' cannot run int8"),
        (int8("--preset", "int9"), "no preset 'int9'. Did you mean"),
        (int8("--stats", "stats"), "stats is not a readable statistics file"),
        (("calibrate", "model.onnx", "-o", "s"), "Expected one of --calibration, --merge"),
        (
            ("calibrate", "model.onnx", "-o", "s", "--calibration", "data", "--merge"),
            "found --calibration and --merge",
        ),
        (
            ("calibrate", "model.onnx", "-o", "s", "--calibration", "data", "--shard", "2"),
            "--shard '2' is not INDEX/COUNT",
        ),
        (
            ("calibrate", "model.onnx", "-o", "s", "--calibration", "data", "--shard", "3/2"),
            "There is no shard 3 of 2",
        ),
        (
            ("calibrate", "a", "b", "-o", "s", "--calibration", "data"),
            "Expected one model; found 2",
        ),
        (("calibrate", "--merge", "none", "-o", "s", "--resume"), "are for --calibration"),
        (("calibrate", "--merge", "none", "-o", "s"), "none is not a readable statistics file"),
        (("quantize", "model.onnx", "--target", "ort-cpu"), "No output is given"),
        (int8("--no-recover", "--min-sqnr", "3"), "--no-recover contradicts --min-sqnr"),
        (int8("--max-float-ops", "3"), "recovery.max_float_ops: Input should be less than"),
        (int8("--preset", "int4", "--min-sqnr", "3"), "preset int4 calibrates no activations"),
        (int8("--preset", "int8-dynamic"), "int8-dynamic needs no calibration data. Leave it out."),
        (int8("--recipe", "none.yaml"), "'none.yaml' cannot be read"),
        (int8(output="no/folder/out.onnx"), "There is no folder 'no/folder'"),
        (int8(output="data"), "'data' is a folder"),
        (int8(output="/proc/out.onnx"), "The folder '/proc' is not writable"),
        (int8(output="model.onnx"), "would overwrite the input"),
        (int8("--report", "no/report.json"), "There is no folder 'no'"),
        (int8("--exclude", "*"), "Nothing in the model can be quantized: excluded by '*'"),
        (
            (
                "calibrate",
                "model.onnx",
                "-o",
                "s",
                "--calibration",
                "data",
                "--observer",
                "minimax",
            ),
            "Did you mean 'minmax'?",
        ),
        (
            ("calibrate", "model.onnx", "-o", "s", "--calibration", "data", "--provider", "cuda"),
            "provider 'cuda' is not available",
        ),
        (int8("--provider", "cuda"), "provider 'cuda' is not available"),
        (int8("--memory-limit", "much"), "The memory limit is 'much'. Write 2GB"),
        (int8("--memory-limit", "9kB"), "bytes in the first feed; the memory limit is 9000."),
        (
            ("calibrate", "--merge", "none", "-o", "s", "--memory-limit", "2GB"),
            "are for --calibration",
        ),
        (
            (
                *("calibrate", "model.onnx", "-o", "s", "--calibration", "data"),
                *("--memory-limit", "2GB", "--resume"),
            ),
            "cannot be resumed",
        ),
        (("build", "model.onnx", "-o", "e", "--target", "rtx-sm89"), "--shape image=1x32x8x8"),
        (
            ("build", "model.onnx", "-o", "e", "--target", "rtx-sm89", "--shape", "1x3"),
            "is not NAME=MIN:OPT:MAX",
        ),
        (("build", "model.onnx", "-o", "e", "--target", "trt-sm89"), "onnxq[tensorrt]"),
        (("build", "model.onnx", "-o", "e", "--target", "ort-cpu"), "runs the ONNX file itself"),
        (("compare", "model.onnx", "none.onnx", "--data", "data"), "There is no file 'none.onnx'"),
    ],
)
def test_a_bad_option(folder, run, arguments, says):
    before = files(folder)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert files(folder) == before


@pytest.mark.parametrize("data", [None, "nowhere"])
def test_int8_without_data_shows_how_to_give_it(folder, run, data):
    code, out, err = run(*int8(data=data))
    assert (code, out) == (2, "")
    for way in (".npz", "file.py:function", "package.module:function", "random:"):
        assert way in err


def test_a_disk_that_fills_up_while_writing(folder):
    """A limit on file sizes stands for the full disk: a write fails midway."""
    before = files(folder)
    limit = 10_000

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ended = subprocess.run(
        [sys.executable, "-m", "onnxq", *int8()],
        cwd=folder,
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "cannot be written" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert files(folder) == before


def test_bits_for_a_budget(folder, run):
    graph = "g (float[n, 64] x, float[64, 256] w) => (float[n, 256] y) { y = MatMul(x, w) }"
    onnxq.save(with_weights(graph), "big.onnx")
    given = ("quantize", "big.onnx", "--preset", "int4", "--target", "ort-cpu")
    for options, action in (
        (("--bits", "auto", "--size-budget", "40kB"), "int8"),
        (("--bits-per-weight", "4.6"), "int4"),
        (("--bits", "2"), "int2"),
        (("--bits", "nf4"), "nf4"),
    ):
        code, out, err = run(*given, "-o", "out.onnx", *options)
        assert code == 0
        assert ("makes floats of nf4 weights" if action == "nf4" else "") in err
        assert bool(err) == (action == "nf4")
        assert f"out.onnx: 1 {action}" in out
    assert run(*given, "--plan", "--bits-per-weight", "4.6")[1].count("block") == 1
    code, _, err = run(*given, "-o", "out.onnx", "--size-budget", "1kB")
    assert code == 2
    assert "The file takes at least 0.01 MB; the budget is 0.00 MB." in err
    code, _, err = run(*given, "-o", "out.onnx", "--bits", "many")
    assert code == 2
    assert "weights.bits" in err


def test_convert(folder, run):
    run("quantize", "model.onnx", "-o", "packed.onnx", "--preset", "int4", "--target", "ort-cpu")
    code, out, err = run("convert", "packed.onnx", "-o", "plain.onnx", "--to", "block-dequantize")
    assert (code, out, err) == (0, "plain.onnx: 1 ops converted to block-dequantize\n", "")
    code, out, _ = run("convert", "plain.onnx", "-o", "back.onnx", "--to", "matmul-nbits", "--json")
    assert (code, json.loads(out)) == (0, {"form": "matmul-nbits", "nodes": 1, "notes": []})
    code, _, err = run("convert", "back.onnx", "-o", "more.onnx", "--to", "matmul-nbits")
    assert code == 2
    assert "has no DequantizeLinear with a block size" in err
    assert not (folder / "more.onnx").exists()


def test_the_version(run):
    code, out, _ = run("--version")
    assert (code, out) == (0, f"onnxq {onnxq.__version__}\n")
    assert "--debug" in run("--help")[1]


def test_a_defect_is_one_line_unless_it_is_looked_for(folder, run, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError("by\nnothing")

    monkeypatch.setattr("onnxq.pipeline.make_plan", fail)
    command = (
        "quantize",
        "model.onnx",
        "-o",
        "out.onnx",
        "--preset",
        "int4",
        "--target",
        "ort-cpu",
    )
    code, out, err = run(*command)
    assert (code, out, err.count("\n")) == (70, "", 1)
    assert "`onnxq quantize model.onnx` met: ZeroDivisionError: by nothing. " in err
    assert "--debug" in err
    with pytest.raises(ZeroDivisionError):
        run(*command, "--debug")
    assert not (folder / "out.onnx").exists()
