"""What calibration costs over plain inference of the same samples.

    python tests/benchmarks/calibration_overhead.py [minmax auto ...]

The samples are 128 ragged lines of text for PP-OCR recognition, rendered beforehand. Runs of plain
inference and of calibration alternate; the medians are compared.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "samples"))

import data  # noqa: E402
import models  # noqa: E402

import onnxq  # noqa: E402
from onnxq import runtime  # noqa: E402

SAMPLES = 128
RUNS = 3


def main() -> None:
    path = models.path("ppocr-rec")
    feeds = list(itertools.islice(data.recognition(), SAMPLES))
    session = runtime.session(path)

    def plain() -> None:
        for feed in feeds:
            session.run(None, feed)

    observers = sys.argv[1:] or ["minmax", "auto"]
    works: dict[str, Callable[[], object]] = {"plain inference": plain}
    for name in observers:
        works[name] = lambda name=name: onnxq.calibrate(path, feeds, observer=name)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for run in range(RUNS + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if run:  # the first compiles, and warms the caches
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{len(feeds)} samples, medians of {RUNS} interleaved runs")
    for name, found in median.items():
        ratio = found / median["plain inference"]
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}"
        print(f"{name:16} {found:6.2f} s ({spread})   {ratio:.2f} times plain")


if __name__ == "__main__":
    main()
