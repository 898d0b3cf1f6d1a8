"""Run a command and say what it took: `python measure.py RESULT.json SECONDS MB COMMAND...`.

The result is {"cpu_s", "wall_s", "rss_mb", "status", "output"}. CPU time is user and system time
of the command and of what it waited for; memory is the peak of its largest process. The status is
"ok", "timeout", "out of memory" (over the limit) or "crash: " and the last line of its errors.

It is a program of its own, of the standard library only: what a process took at most counts from
its fork on, when it still has the memory of its parent.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_POLL = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


def measure(command, seconds, megabytes):
    """What `command` took; it is ended when it takes more than is allowed."""
    begun = time.monotonic()
    ended = None
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)
        done = 0
        while not done:
            time.sleep(_POLL)
            done, status, used = os.wait4(child.pid, os.WNOHANG)
            if not done and ended is None:
                ended = _over(child.pid, begun, seconds, megabytes)
                if ended:
                    os.killpg(child.pid, signal.SIGKILL)
        texts = [_text(output), _text(errors)]
    child.returncode = os.waitstatus_to_exitcode(status)
    if ended is None:
        ended = "ok" if child.returncode == 0 else f"crash: {_reason(child.returncode, texts)}"
    return {
        "status": ended,
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "wall_s": round(time.monotonic() - begun, 2),
        "rss_mb": round(used.ru_maxrss / 1024, 1),
        "output": texts[0].strip(),
    }


def _over(pid, begun, seconds, megabytes):
    if time.monotonic() - begun > seconds:
        return "timeout"
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):  # it has just ended
        return None
    return "out of memory" if resident > megabytes << 20 else None


def _text(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def _reason(code, texts):
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"


if __name__ == "__main__":
    result, seconds, megabytes, *command = sys.argv[1:]
    Path(result).write_text(json.dumps(measure(command, float(seconds), int(megabytes))))
