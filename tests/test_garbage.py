"""Garbage is looked for rarely while onnxq works, and as before afterwards."""

import gc
import subprocess
import sys

import pytest

from onnxq.garbage import rarely_collected


@pytest.fixture(autouse=True)
def _threshold():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(("before", "within"), [(700, 10_000), (50_000, 50_000), (0, 0)])
def test_the_threshold_is_raised_and_put_back(before, within):
    gc.set_threshold(before, 7, 5)
    with rarely_collected():
        assert gc.get_threshold() == (within, 7, 5)
    assert gc.get_threshold() == (before, 7, 5)


def test_it_is_put_back_after_a_failure():
    gc.set_threshold(700, 10, 10)
    with pytest.raises(ValueError, match="no"), rarely_collected():
        raise ValueError("no")
    assert gc.get_threshold() == (700, 10, 10)


def test_the_command_line_ends_without_a_last_look():
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from onnxq import cli\n"
        "cli.main()"
    )
    command = [sys.executable, "-c", code, "targets", "--json"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert said.splitlines()[-1] == "True"
