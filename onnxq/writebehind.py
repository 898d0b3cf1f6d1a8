"""Writing while the next is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO


class WriteBehind:
    """Writes to a file in a thread of its own, one piece at a time.

    `write` waits for the piece before, so that no more than one is in memory beside what is
    computed meanwhile. What fails is raised by the next call, or when the block ends.

    Args:
        file: Left to this object while the block runs.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1)
        self._before: Future[None] | None = None

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            self._wait()

    def write(self, *pieces: bytes | memoryview) -> None:
        """Write `pieces` one after the other, which nobody may change any more.

        Raises:
            OSError: The piece before was not written.
        """
        self._wait()
        self._before = self._thread.submit(self._file.writelines, pieces)

    def _wait(self) -> None:
        if self._before is not None:
            self._before.result()
