"""Importing onnxq, and asking for help, loads nothing heavy."""

import json
import subprocess
import sys

import pytest

PRINT = "; import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
# The packages that help may load, besides the standard library; `import onnxq` may load none.
HELP = {
    *("typer", "click", "rich", "shellingham", "typing_extensions", "annotated_doc"),
    *("markdown_it", "mdurl", "pygments", "colorama"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),  # by typer
}


def loaded(code):
    bare = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    found, before = (
        set(json.loads(subprocess.run(
            [sys.executable, "-c", text], capture_output=True, check=True, text=True
        ).stdout.splitlines()[-1]))
        for text in (code + PRINT, bare)
    )  # fmt: skip
    third_party = found - before - set(sys.stdlib_module_names)
    return {name for name in third_party if not name.startswith("_sysconfigdata")}


def test_import():
    assert loaded("import onnxq") == {"onnxq"}


@pytest.mark.parametrize(
    "command", ["", "quantize", "calibrate", "build", "compare", "convert", "inspect"]
)
def test_help(command):
    run = (
        "import sys; sys.argv = ['onnxq', *'" + command + "'.split(), '--help']\n"
        "from onnxq import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\nNone"
    )
    assert loaded(run) - HELP == {"onnxq"}


def test_attributes_are_found_lazily_and_listed():
    import onnxq

    assert set(onnxq.__all__) <= set(dir(onnxq))
    assert all(getattr(onnxq, name) for name in onnxq.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = onnxq.quantise
