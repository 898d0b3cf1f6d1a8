"""Progress shows on a terminal, and nowhere else."""

import os
import pty
import subprocess
import sys

from onnxq.progress import progress

SCRIPT = """
import time
from onnxq.progress import progress
with progress("Working", 3) as advance:
    for _ in range(3):
        advance()
        time.sleep(0.15)
print("done")
"""


def test_silent_when_piped(capfd):
    with progress("Working", 2) as advance:
        advance()
        advance()
    assert capfd.readouterr() == ("", "")


def test_a_bar_on_a_terminal():
    terminal, other_end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE, stderr=other_end, env=environment, check=True, text=True,
    )  # fmt: skip
    os.close(other_end)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert out.stdout == "done\n"
    assert "Working" in shown
    assert "/3" in shown
    assert "0:00:0" in shown
