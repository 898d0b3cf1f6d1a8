"""Every command and snippet of the README runs, in order, in a folder with the models it names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import data
import models
import numpy as np
import pytest
from PIL import Image

import onnxq

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def blocks(language):
    return [text for found, text in BLOCKS if found == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything that the snippets read."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for index, feed in zip(range(8), data.yolo(), strict=False):
        pixels = (feed["images"][0].transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{index}.png")
    shutil.copy(models.path("yolov8n"), folder / "yolo.onnx")
    shutil.copy(models.path("smollm2"), folder / "llm.onnx")
    onnxq.save(qat_model(), folder / "qat.onnx")
    (folder / "calibration.cache").write_text("TRT-8601-EntropyCalibration2\nimages: 3c010a14\n")
    for language, text in BLOCKS:
        name = re.match(r"# (\S+\.(py|yaml))\n", text)
        if language in ("python", "yaml") and name:
            (folder / name[1]).write_text(text)
    return folder


def qat_model():
    """What torch exports of a network with fake quantization."""
    import torch

    class QatConv(torch.nn.Conv2d):
        def __init__(self, inputs, outputs):
            super().__init__(inputs, outputs, 3, padding=1)
            scale = self.weight.detach().abs().amax((1, 2, 3)) / 127
            self.register_buffer("scale", scale)
            self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int32))

        def forward(self, x):
            x = torch.fake_quantize_per_tensor_affine(x, 0.03, 0, -128, 127)
            weight = torch.fake_quantize_per_channel_affine(
                self.weight, self.scale, self.zero, 0, -128, 127
            )
            return torch.nn.functional.conv2d(x, weight, self.bias, padding=1)

    net = torch.nn.Sequential(QatConv(32, 64), torch.nn.ReLU(), QatConv(64, 32)).eval()
    x = torch.randn(1, 32, 16, 16)
    return torch.onnx.export(net, (x,), dynamo=True, verbose=False)


def run(command, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pipe = subprocess.PIPE
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_commands(folder):
    lines = [line[2:] for text in blocks("console") for line in text.splitlines()]
    assert len(lines) == 20
    said = {line: run(line, folder) for line in lines}
    assert "int8" in said[lines[0]]
    assert "unproven: 0" in said[next(line for line in lines if "inspect yolo.engine" in line)]
    assert "proven: 2" in said[next(line for line in lines if "build qat.onnx" in line)]
    assert (folder / "llm.older.onnx").is_file()
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert (folder / "llm.mixed.onnx.data").is_file()
    assert (folder / "llm.90MB.onnx").stat().st_size <= 90e6


def test_the_snippets(folder):
    script = "\n".join(text for text in blocks("python") if not text.startswith("# calibration"))
    (folder / "snippets.py").write_text(script)
    said = run(f"{sys.executable} snippets.py", folder)
    assert "{'int8': 2, 'float': " in said
    assert "'proven': 2" in said
    assert "(4096, 64) (128, 64)" in said


def test_ci_runs_the_two_installing_commands():
    first, second = blocks("sh")
    assert "samples/ocr_int8_engine.py" in first
    assert "-m pytest" in second
    script = (ROOT / ".ci/run").read_text()
    assert re.findall(r"command_of_readme (\d)", script) == ["1", "2"]


def test_what_the_tables_name_exists():
    for path in re.findall(r"`((?:onnxq|passes)/[\w/]+)/NAME\.py`", README):
        assert (ROOT / path).is_dir()
    from onnxq import targets

    named = set(re.findall(r"`((?:ort|rtx|trt)-\w+)`", README))
    assert named == {target.name for target in targets.all_targets()}
