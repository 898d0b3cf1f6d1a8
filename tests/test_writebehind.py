"""What is written behind is written in order, and its failures are not lost."""

import errno
import io
import threading

import pytest

from onnxq.writebehind import WriteBehind


class Slow(io.BytesIO):
    """Writes when it is told to."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def writelines(self, pieces):
        assert self.go.wait(10)
        super().writelines(pieces)


class Full(io.BytesIO):
    def writelines(self, _pieces):
        raise OSError(errno.ENOSPC, "no space")


def test_pieces_come_in_order():
    file = io.BytesIO()
    with WriteBehind(file) as behind:
        for number in range(100):
            behind.write(b"<", memoryview(b"%d" % number), b">")
    assert file.getvalue() == b"".join(b"<%d>" % number for number in range(100))


def test_the_caller_goes_on_while_a_piece_is_written():
    file = Slow()
    with WriteBehind(file) as behind:
        behind.write(b"one")
        assert file.getvalue() == b""
        file.go.set()
        behind.write(b"two")
        assert file.getvalue().startswith(b"one")
    assert file.getvalue() == b"onetwo"


@pytest.mark.parametrize(("limit", "ahead"), [(0, 1), (8, 2), (9, 3), (100, 5)])
def test_as_much_waits_as_may(limit, ahead):
    file, taken = Slow(), []
    with WriteBehind(file, limit) as behind:

        def fill():
            for _ in range(5):
                behind.write(b"one")
                taken.append(1)

        filling = threading.Thread(target=fill)
        filling.start()
        filling.join(0.5)
        assert len(taken) == ahead
        file.go.set()
        filling.join(10)
    assert file.getvalue() == b"one" * 5


def test_a_failure_is_raised_by_the_next_piece():
    with pytest.raises(OSError, match="no space"), WriteBehind(Full()) as behind:
        behind.write(b"one")
        behind.write(b"two")
        pytest.fail("the second piece was taken")


def test_a_failure_of_the_last_piece_is_raised_at_the_end():
    with pytest.raises(OSError, match="no space"), WriteBehind(Full()) as behind:
        behind.write(b"one")


def test_a_failure_of_the_block_comes_first_and_waits_for_the_file():
    file = Slow()
    file.go.set()
    with pytest.raises(KeyboardInterrupt), WriteBehind(file) as behind:
        behind.write(b"one")
        raise KeyboardInterrupt
    assert file.getvalue() == b"one"
