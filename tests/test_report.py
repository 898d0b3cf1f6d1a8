"""The report: JSON says everything, HTML shows it, and neither needs the network."""

import json
import re

import pytest

from onnxq.errors import MissingPackageError, OutputError
from onnxq.report import Decision, Report


@pytest.fixture
def report():
    return Report(
        onnxq_version="0.1.0",
        model="<model>.onnx",
        target="ort-cpu",
        recipe={"preset": "int8"},
        calibration={"data": "folder", "samples": 4, "observer": "minmax"},
        decisions=[
            Decision("conv", "Conv", "int8", "static", {"input_scale": 0.5}),
            Decision("a", "Relu", "float", "no weights"),
            Decision("b", "Relu", "float", "no weights"),
            Decision("up", "ConvTranspose", "float", "no kernel & <none>"),
        ],
        weight_bytes={"before": 4_000_000, "after": 1_000_000},
        warnings=["Careful."],
    )


def test_counts_and_reasons(report):
    assert report.counts() == {"int8": 1, "float": 3}
    reasons = report.float_reasons()
    assert list(reasons) == ["no kernel & <none>", "no weights"]
    assert [decision.node for decision in reasons["no weights"]] == ["a", "b"]


def test_json(report, tmp_path):
    report.save(tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["counts"] == {"int8": 1, "float": 3}
    assert found["decisions"][0]["numbers"] == {"input_scale": 0.5}
    assert found["weight_bytes"] == {"before": 4_000_000, "after": 1_000_000}
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_html(report, tmp_path):
    report.save(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "<h1>&lt;model&gt;.onnx</h1>" in page
    assert "no kernel &amp; &lt;none&gt;" in page
    assert "1.00 MB after\n    (0.25 of it)" in page
    assert "Careful." in page
    assert not re.search(r"(src|href)=", page)


def test_html_without_calibration(report):
    report.calibration = None
    assert "Calibration" not in report.to_html()


def test_html_without_jinja(report, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'onnxq\[report\]'"):
        report.to_html()


def test_a_report_that_cannot_be_written(report, tmp_path):
    with pytest.raises(OutputError, match=r"report '.*r.json' cannot be written"):
        report.save(tmp_path / "none/r.json")
