"""Work is shared once: what is shared inside of it is done where it is."""

import threading

import pytest

from onnxq.kernels import threads


@pytest.mark.parametrize(("count", "items"), [(1, 5), (3, 1), (3, 40), (4, 0)])
def test_every_item_once_and_in_order(monkeypatch, count, items):
    monkeypatch.setenv(threads.VARIABLE, str(count))
    found = threads.shared(lambda first, last: list(range(first, last)), items)
    assert [item for part in found for item in part] == list(range(items))


def test_what_is_shared_inside_stays_in_its_thread(monkeypatch):
    monkeypatch.setenv(threads.VARIABLE, "3")

    def outer(first, last):
        here = threading.get_ident()
        inner = threads.shared(lambda *given: (given, threading.get_ident()), 10)
        return inner == [((0, 10), here)], last > first

    assert all(alone for alone, some in threads.shared(outer, 12) if some)
    assert len(threads.shared(lambda *given: given, 12)) == 12
