"""int8-dynamic without data: from Python and on the command line, on small and real models."""

import json

import judges
import models
import pytest
from graphs import with_weights
from typer.testing import CliRunner

import onnxq
from onnxq import pipeline, preparation
from onnxq.cli import app
from onnxq.errors import TargetError

NET = """
g (float[5, 2, 16] x, float[1, 128, 16] w, float[1, 128, 32] wr, float[32, 8] w2) => (float[n] y) {
    [memory] a = LSTM <hidden_size = 32> (x, w, wr)
    [head] y = MatMul(a, w2)
}
"""


@pytest.fixture
def net():
    return with_weights(NET)


@pytest.mark.parametrize("vnni", [None, True, False])
def test_the_plan_says_what_the_cpu_gets(net, vnni, monkeypatch):
    monkeypatch.setattr(preparation, "has_vnni", lambda: False)
    plan = pipeline.plan(net, preset="int8-dynamic", target="ort-cpu", cpu_has_vnni=vnni)
    bits = 8 if vnni else 7
    assert {row["node"]: row["how or why"] for row in plan.to_rows()} == {
        "memory": f"weight int{bits} symmetric block 16(axis 2), "
        "activation uint8 asymmetric per-tensor at run time",
        "head": f"weight int{bits} symmetric per-channel(axis 1), "
        "activation uint8 asymmetric per-tensor at run time",
    }


def test_on_the_command_line(net, tmp_path):
    onnxq.save(net, tmp_path / "net.onnx")
    written, report = str(tmp_path / "out.onnx"), tmp_path / "report.json"
    command = [
        *("quantize", str(tmp_path / "net.onnx"), "-o", written, "--target", "ort-cpu"),
        *("--preset", "int8-dynamic", "--no-cpu-has-vnni", "--report", str(report)),
    ]
    assert CliRunner().invoke(app, command).exit_code == 0
    told = json.loads(report.read_text())
    assert told["counts"] == {"int8": 2}
    assert {d["numbers"]["weight"][:4] for d in told["decisions"]} == {"int7"}
    assert {d["reason"] for d in told["decisions"]} == {"dynamic for ort-cpu, rtn"}
    assert told["weight_bytes"]["after"] < 0.35 * told["weight_bytes"]["before"]
    found = CliRunner().invoke(app, ["inspect", written, "--json"])
    precisions = {op["op_type"]: op["precision"] for op in json.loads(found.stdout)["ops"]}
    assert precisions["DynamicQuantizeLSTM"] == precisions["MatMulInteger"] == "int8"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("rtx-sm89", "DynamicQuantizeLinear.*Ask for --preset int8, with calibration data"),
        ("trt-sm80", "DynamicQuantizeLinear.*Ask for --preset int8, with calibration data"),
        ("ort-cuda", "CUDA provider has no kernels.*Ask for --preset int4"),
    ],
)
def test_targets_that_refuse(net, target, why):
    with pytest.raises(TargetError, match=why):
        onnxq.quantize(net, preset="int8-dynamic", target=target)


def test_the_cpu_is_asked_for_no_other_preset(net):
    with pytest.raises(TargetError, match=r"Preset int4 .* is the same for CPUs with VNNI"):
        onnxq.quantize(net, preset="int4", target="ort-cpu", cpu_has_vnni=True)


@pytest.mark.parametrize("vnni", [True, False])
def test_embeddings_stay_what_they_are(tmp_path, vnni):
    result = onnxq.quantize(
        models.path("minilm"), preset="int8-dynamic", target="ort-cpu", cpu_has_vnni=vnni
    )
    assert result.report.counts()["int8"] == 36 + 1  # and the table of words
    result.save(tmp_path / "minilm.onnx")
    assert judges.minilm(tmp_path / "minilm.onnx") >= 0.99


def test_speech_is_told_from_silence(tmp_path):
    result = onnxq.quantize(models.path("silero-vad"), preset="int8-dynamic", target="ort-cpu")
    assert result.report.counts()["int8"] == 4
    convs = [d for d in result.report.decisions if d.op_type == "Conv"]
    assert all("3 to 4 times as long" in conv.reason for conv in convs)
    result.save(tmp_path / "vad.onnx")
    expected = judges.silero(models.path("silero-vad"), 2)
    assert judges.silero(tmp_path / "vad.onnx", 2) >= expected - 0.01
