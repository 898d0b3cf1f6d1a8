"""The samples run to the end, on reduced data."""

import subprocess
import sys
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
    command = [sys.executable, str(SAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_ocr_int8_engine(tmp_path):
    output = ("--output", str(tmp_path))
    lines = run("ocr_int8_engine.py", "--lines", "20", "--calibration-lines", "8", *output)
    assert [line.split()[0] for line in lines] == ["float", "ort-cpu", "rtx-sm89", "engine"]
    assert {"int8.engine", "int8.engine.json", "float.engine"} <= {
        p.name for p in tmp_path.iterdir()
    }


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
