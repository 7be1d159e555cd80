"""Telling that never blocks and never raises: what is told to a person must not hold up what keeps outputs safe.

    write -> queue, at most PENDING_CAP characters -> thread -> os.write -> terminal, pipe, file

A terminal that is stopped (Ctrl-S), a full pipe, a lost ssh or a full disk leave the text in the queue or drop it; the writer
goes on at once. What a stream lacks of the text (an ASCII terminal) is replaced. A stream without a descriptor of its own, such
as an io.StringIO or that of a notebook, is written to directly.

A program that has nothing else to do than to tell may be `patient`: it waits for a slow reader, and nothing is dropped.

    Teller        a text stream
    Background    anything else that may hang, such as a line for a file on a disk that is gone
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

PENDING_CAP = 1 << 18
JOBS_CAP = 4096
LEAVE_S = 0.5
LONGEST_S = 30.0  # to wait for a reader that takes a little now and then
SLICE = 4096  # bytes in one write to a pipe: what a slow reader has taken is seen
Lost = Callable[[str], None]


def ignore(why: str) -> None:
    """Do nothing: nobody wants to know that a display went away."""


class Teller(io.TextIOBase):
    """A stream to tell people things through.

    Args:
        stream: where the text goes, for example sys.stderr; None (closed before the program began): nowhere.
        lost: called once, from any thread, with the reason when text cannot be shown; must not raise.
    """

    def __init__(self, stream: TextIO | None, lost: Lost = ignore) -> None:
        self._stream = stream
        self.on_lost = lost
        self.lost = self._first = ""
        self.patient = False
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._descriptor = _descriptor(stream)
        self._pending: deque[str] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._taken_at = time.monotonic()

    def hear(self, lost: Lost) -> None:
        """Call `lost` from now on when text cannot be shown; at once, if that was so before."""
        self.on_lost = lost
        if self._first:
            lost(self._first)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return self._encoding

    def isatty(self) -> bool:
        """True for a terminal; False for a stream that is gone."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # closed
            return False

    def fileno(self) -> int:
        """The descriptor behind. Raises: io.UnsupportedOperation: there is none."""
        if self._descriptor is None:
            raise io.UnsupportedOperation("fileno")
        return self._descriptor

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Take `text`; returns its length at once, whatever becomes of it."""
        if self._stream is None:
            self._say_lost("there is no such stream")
        elif self._descriptor is None:
            self._write_directly(text)
        else:
            self._queue(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as the stream takes it. See `drain`."""

    def drain(self, wait_s: float = LEAVE_S) -> bool:
        """Wait until all is written, as long as the stream takes some every `wait_s`; False: it was not."""
        begin = time.monotonic()
        with self._changed:
            while self._pending and not self.lost:
                now = time.monotonic()
                left = min(max(begin, self._taken_at) + wait_s, begin + LONGEST_S) - now
                if self.patient:
                    left = wait_s  # look again, without end
                elif left <= 0:
                    break
                self._changed.wait(left)
            return not self._pending

    def shut(self) -> None:
        """Write what waits, and close the stream; a stream that hangs is left to its thread. Nothing is taken any more."""
        whole = self.drain()
        with self._changed:
            self.lost = self.lost or "closed"
            self._changed.notify_all()
        if whole and self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.close()

    def _queue(self, text: str) -> None:
        with self._changed:
            while self.patient and not self.lost and self._pending and self._size + len(text) > PENDING_CAP:
                self._changed.wait(LEAVE_S)
            full = self._size + len(text) > PENDING_CAP and not (self.patient and not self._pending)
            if not full and not self.lost:
                self._pending.append(text)
                self._size += len(text)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="telling", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        if full:
            self._say_lost("it takes no text, and too much waits for it", for_good=False)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self.lost:
                    self._changed.wait()
                if not self._pending:
                    return
                text = self._pending[0]
            try:
                if self._stream is not None:
                    self._stream.flush()  # what others wrote before
                self._write_out(text.encode(self._encoding, errors="replace"))
            except (OSError, ValueError) as error:
                self._say_lost(getattr(error, "strerror", "") or str(error))
                with self._changed:
                    self._pending.clear()
                    self._size = 0
                    self._thread = None
                    self._changed.notify_all()
                return
            with self._changed:
                self._size -= len(self._pending.popleft())
                self._changed.notify_all()

    def _write_out(self, data: bytes) -> None:
        assert self._descriptor is not None
        while data:
            try:
                data = data[os.write(self._descriptor, data[:SLICE]) :]
                self._taken_at = time.monotonic()
            except BlockingIOError:  # somebody else made the terminal non-blocking
                time.sleep(0.01)

    def _write_directly(self, text: str) -> None:
        assert self._stream is not None
        try:
            self._stream.write(text.encode(self._encoding, errors="replace").decode(self._encoding))
            self._stream.flush()
        except Exception as error:  # noqa: BLE001 (it may be anybody's class)
            self._say_lost(str(error))

    def _say_lost(self, why: str, for_good: bool = True) -> None:
        if for_good:
            self.lost = self.lost or why
        if not self._first:
            self._first = why
            self.on_lost(why)


class Background:
    """Jobs that a thread of their own does, one after the other. The thread ends with the process, finished or not.

    Args:
        name: of the thread.
        most: jobs that may wait.
    """

    def __init__(self, name: str, most: int = JOBS_CAP) -> None:
        self._name, self._most = name, most
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def later(self, job: Callable[[], None]) -> bool:
        """Do `job` when those before it are done; returns at once. An OSError in it is dropped.

        False: too many wait, and this one is left out.
        """
        with self._changed:
            if len(self._jobs) >= self._most:
                return False
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def drain(self, wait_s: float = LEAVE_S) -> bool:
        """Wait until all jobs are done, `wait_s` at most; False: they are not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, wait_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs))
                job = self._jobs[0]
            with contextlib.suppress(OSError):
                job()
            with self._changed:
                self._jobs.popleft()
                self._changed.notify_all()


def _descriptor(stream: TextIO | None) -> int | None:
    """Return the descriptor of a stream that writes there; others may name one that is not where their text goes."""
    try:
        return stream.fileno() if isinstance(stream, io.TextIOWrapper) else None
    except (OSError, ValueError):
        return None
