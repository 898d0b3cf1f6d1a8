"""What users get: the wheel, the source distribution, and a wheel made of that."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import onnxq

ROOT = Path(__file__).parent.parent
PASSES = {f"passes/{path.relative_to(ROOT / 'passes')}" for path in (ROOT / "passes").rglob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the source distribution; the wheel is made of the latter."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_the_wheel(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name == f"onnxq-{onnxq.__version__}-py3-none-any.whl"
    assert {f"onnxq/{name}" for name in PASSES} <= names
    assert {"onnxq/py.typed", "onnxq/report.html.jinja", "onnxq/cli.py"} <= names
    assert {name.split("/")[0] for name in names} == {
        "onnxq", f"onnxq-{onnxq.__version__}.dist-info",
    }  # fmt: skip
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= PASSES
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "tests/graphs.py"} <= names
    assert "samples/models.py" in names
    assert not any(part in name for name in names for part in (".cache", "__pycache__", ".venv"))


def test_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {"cpu", "gpu", "tensorrt", "rtx", "report", "samples", "dev"} <= set(extras)
    required = " ".join(project["dependencies"])
    for heavy in ("onnxruntime", "tensorrt", "torch", "modelopt", "olive", "neural-compressor"):
        assert heavy not in required


def test_passes_are_imported_as_a_part_of_onnxq(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match=r"onnxq\.passes"):
        __import__("passes")
