"""Writing while the next is computed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO


class WriteBehind:
    """Writes to a file in a thread of its own, in the order given.

    What fails is raised by a later call, or when the block ends.

    Args:
        file: Left to this object while the block runs.
        limit: The bytes that may be in memory to be written; what is larger is alone there.
    """

    def __init__(self, file: BinaryIO, limit: int = 0) -> None:
        self._file = file
        self._limit = limit
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        while kind is None and self._waiting:
            self._finish_first()

    def write(self, *pieces: bytes | memoryview) -> None:
        """Write `pieces` one after the other, which nobody may change any more.

        Raises:
            OSError: An earlier piece was not written.
        """
        size = sum(memoryview(piece).nbytes for piece in pieces)
        while self._waiting and self._bytes + size > self._limit:
            self._finish_first()
        self._waiting.append((self._thread.submit(self._file.writelines, pieces), size))
        self._bytes += size

    def _finish_first(self) -> None:
        writing, size = self._waiting.popleft()
        self._bytes -= size
        writing.result()
