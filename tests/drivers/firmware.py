"""The far end of a serial line, on a pseudo-terminal in raw mode, with a thread that answers."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from collections.abc import Callable, Iterator


class Firmware:
    """The far end of a serial line: answers each line that `answer` knows."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self.master)
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._answer = answer
        self._ended, self._end = os.pipe()
        self._pulled = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        line = b""
        with contextlib.suppress(OSError):
            while self._ended not in select.select([self.master, self._ended], [], [])[0]:
                line += os.read(self.master, 4096)
                while b"\n" in line:
                    message, line = line.split(b"\n", 1)
                    if message == b"UNPLUG":  # closed by the thread that reads: a blocked read would keep it open
                        self._pulled = True
                        os.close(self.master)
                        return
                    reply = self._answer(message)
                    if reply is not None:
                        self.say(reply)

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.master, data) :]

    def unplug(self) -> None:
        os.write(self._end, b".")
        self._thread.join()  # or it would read on, from what is opened next under this number
        for file in (self._slave, self._ended, self._end):
            os.close(file)
        if not self._pulled:
            os.close(self.master)


@contextlib.contextmanager
def firmware(answer: Callable[[bytes], bytes | None]) -> Iterator[Firmware]:
    board = Firmware(answer)
    try:
        yield board
    finally:
        board.unplug()
