"""A stream that never blocks its writer: stopped terminals, full pipes, full disks, closed and narrow streams."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import pytest

from hil.telling import PENDING_CAP, Background, Teller


def test_a_pipe_that_nobody_reads_does_not_hold_the_writer() -> None:
    read, write = os.pipe()
    with open(write, "w", encoding="utf-8") as stream:
        reasons: list[str] = []
        teller = Teller(stream, reasons.append)
        begin = time.monotonic()
        for _ in range(2 * PENDING_CAP // 1000):
            teller.write("x" * 1000)
        assert time.monotonic() - begin < 10.0
        assert reasons == ["it takes no text, and too much waits for it"]
        assert not teller.drain(0.05)
        got = b""
        while len(got) < PENDING_CAP - 1000:
            got += os.read(read, 1 << 16)
        assert teller.drain(5.0)  # it goes on where it is read again
        os.close(read)


@pytest.mark.parametrize("which", ["nobody reads", "full disk", "closed"])
def test_a_stream_that_takes_nothing_is_told_of_once(which: str) -> None:
    reasons: list[str] = []
    read, write = os.pipe()
    os.close(read)
    stream = {
        "nobody reads": lambda: os.fdopen(write, "w", encoding="utf-8"),
        "full disk": lambda: Path("/dev/full").open("w", encoding="utf-8"),  # noqa: SIM115
        "closed": lambda: None,
    }[which]()
    teller = Teller(stream, reasons.append)
    for _ in range(3):
        teller.write("a line\n")
        teller.drain(1.0)
    assert len(reasons) == 1
    assert reasons[0]
    assert not teller.isatty()


def test_what_a_stream_cannot_encode_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="ascii") as stream:
        teller = Teller(stream)
        teller.write("V_π ━ 3.5\n")
        assert teller.drain(1.0)
    assert path.read_bytes() == b"V_? ? 3.5\n"


def test_a_stream_in_memory_is_written_to_at_once() -> None:
    stream = io.StringIO()
    Teller(stream).write("now")
    assert stream.getvalue() == "now"


def test_jobs_in_the_background_are_done_in_order_and_hold_up_nobody() -> None:
    done, hangs, begun = list[int](), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        hangs.wait()
        raise OSError(5, "Input/output error")

    background = Background("test", most=3)
    assert background.later(hang)
    assert begun.wait(10.0)
    assert background.later(lambda: done.append(1))
    assert background.later(lambda: done.append(2))
    assert not background.later(lambda: done.append(3)), "too many wait"
    assert not background.drain(0.01)
    assert done == []
    hangs.set()
    assert background.drain(10.0)
    assert done == [1, 2]
    assert background.later(lambda: done.append(4))
    assert background.drain(10.0)
    assert done == [1, 2, 4]
