"""The host's end of its worker: forked, asked with a deadline, killed. Each process is known by a descriptor (pidfd).

ForkServer      a process that forks workers; started once, again if it died
Worker          one process that owns the device
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hil import child
from hil.errors import Desync, Disconnected, HilError, LinkTimeout, OpenFailed
from hil.host.faults import error_of
from hil.host.frames import Bytes, Wire
from hil.plain import plain
from hil.telling import Teller

FORK_S = 60.0  # a fork server imports torch first
END_S = 2.0  # a killed process that is not gone by then hangs in the kernel
LAST_LINES, MOST_LETTERS = 64, 200
CRASH, INNERMOST = "Fatal Python error", "Current thread"  # words of faulthandler
NOT_KNOWN = "not known; they are made safe now"


class WorkerLost(Exception):
    """A worker is of no use any more. Args: error: what the trainer is told."""

    def __init__(self, error: HilError) -> None:
        super().__init__(error.what)
        self.error = error


class ForkServer:
    """See hil/host/forks.py."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [*child.command("hil.host.forks"), str(theirs.fileno())], stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),), cwd="/", env=child.environment(),
            )  # fmt: skip
        finally:
            theirs.close()
        self._ready = False
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """True if it has not ended."""
        return self._process.poll() is None

    def fork(self, voice: Teller) -> Worker:
        """Fork a worker. Raises: OpenFailed: the fork server ended, or gives no answer."""
        ours, theirs = socket.socketpair()
        alive, ends_with_us = os.pipe()
        printed, output = os.pipe()
        try:
            pid = int(self._asked(b"fork", [theirs.fileno(), alive, output]))
            return Worker(pid, self, ours, ends_with_us, printed, voice)
        except (OSError, ValueError) as error:
            ours.close()
            os.close(ends_with_us)
            os.close(printed)
            raise OpenFailed("no process for the device can be started", where="host", got=str(error)) from error
        finally:
            theirs.close()
            os.close(alive)
            os.close(output)

    def status(self, pid: int) -> int | None:
        """Exit status of a worker that has ended; None: it cannot be known."""
        try:
            return int(self._asked(b"wait %d" % pid))
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)

    def _asked(self, message: bytes, files: Sequence[int] = ()) -> bytes:
        with self._lock:
            if not self._ready:
                self._control.settimeout(FORK_S)
                if not self._control.recv(64):
                    raise OSError("the fork server ended")
                self._ready = True
            self._control.settimeout(END_S)
            socket.send_fds(self._control, [message], list(files))
            answer = self._control.recv(64)
            if not answer:
                raise OSError("the fork server ended")
            return answer


class Worker:
    """A process that owns the device.

    Args:
        pid: of the process.
        forks: its parent.
        end: of the socket to it.
        alive: pipe that the worker sees the end of when this process ends.
        printed: pipe with what it prints.
        voice: where that is shown.
    """

    def __init__(self, pid: int, forks: ForkServer, end: socket.socket, alive: int, printed: int, voice: Teller) -> None:
        self.pid, self._forks, self._alive, self._voice = pid, forks, alive, voice
        self._handle = os.pidfd_open(pid)
        self._wire = Wire(end)
        self._number = 0
        self._closing, self._closed = threading.Lock(), False
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._printed = threading.Thread(target=self._hear, args=(printed,), name="worker heard", daemon=True)
        self._printed.start()

    def call(self, do: str, within_s: float, body: Bytes = b"", **head: Any) -> tuple[dict[str, Any], bytearray]:
        """Have something done, and return head and body of the answer.

        Args:
            do: what, see hil/host/worker.py.
            within_s: how long it may take.
            body: bytes of an array.
            **head: JSON values.

        Raises:
            HilError: the device's.
            WorkerLost: with LinkTimeout, it takes longer; with Disconnected, the process ended; with Desync, another answer
                than the one that was due.
        """
        self._number += 1
        end_s = time.monotonic() + within_s
        try:
            self._wire.send({"call": self._number, "do": do, **head}, body, end_s)
            answer, data = self._wire.receive(end_s)
        except TimeoutError as error:
            raise WorkerLost(LinkTimeout(
                f"{do} takes too long", where="device", got=f"no answer within {within_s:g} s", outputs=NOT_KNOWN,
                todo="raise deadline_s if the device needs longer; else see what it waits for",
            )) from error  # fmt: skip
        except Desync as error:
            raise WorkerLost(error) from error
        except (OSError, Disconnected) as error:
            raise WorkerLost(Disconnected(
                f"the process of the device ended during {do}", where="device", got=self._last(), outputs=NOT_KNOWN,
                todo="see its last words: a library that crashes ends its process",
            )) from error  # fmt: skip
        if answer.get("call") != self._number:
            raise WorkerLost(Desync(
                "the answer belongs to another call", where="device", got=str(answer.get("call")), allowed=str(self._number),
                outputs=NOT_KNOWN,
            ))  # fmt: skip
        if "fault" in answer:
            raise error_of(answer["fault"])
        return answer, data

    def stop(self) -> None:
        """Send SIGKILL, from any thread."""
        with self._closing, suppress(OSError):
            if not self._closed:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def kill(self) -> bool:
        """End the process, and return whether it is gone. Nothing can be asked of it afterwards."""
        self.stop()
        gone = self.ended(END_S)
        if gone:
            self._forks.status(self.pid)
        with self._closing:
            self._closed = True
            self._wire.close()
            for file in (self._alive, self._handle):
                os.close(file)
        return gone

    def ended(self, within_s: float) -> bool:
        """True if the process ends within that time."""
        return bool(select.select([self._handle], [], [], within_s)[0])

    def _last(self) -> str:
        """Say how it ended, and its last words."""
        if not self.ended(END_S):
            return "it closed its socket, and still runs"
        status = self._forks.status(self.pid)
        self._printed.join(END_S / 4)
        how = "" if status is None else f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        return "; ".join(text for text in (how, " / ".join(last_words(list(self._lines)))) if text)

    def _hear(self, printed: int) -> None:
        with os.fdopen(printed, "r", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                self._lines.append(line.strip()[:MOST_LETTERS])
                self._voice.write(plain(line))


def last_words(lines: Sequence[str]) -> list[str]:
    """Of what a process printed last, what says why it ended: of a crash the innermost lines of Python, else the last line."""
    crashed = [number for number, line in enumerate(lines) if line.startswith(CRASH)]
    if not crashed:
        return [line for line in lines if line][-1:]
    after = lines[crashed[-1] :]
    inner = next((number for number, line in enumerate(after) if line.startswith(INNERMOST)), len(after))
    return [after[0], *after[inner + 1 : inner + 4]]
