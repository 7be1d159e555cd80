"""Start and watch of a worker's process. hil/system.py says which way is taken.

ForkServer   a process that has imported torch forks each worker, in milliseconds (hil/host/forks.py)              Linux
Spawner      each worker is a program of its own, which imports torch first; one more waits for the next time      elsewhere

A worker has a socket to its host, a pipe that ends with the host, and one for what it prints. A forked one inherits the socket.
A spawned one is told a port of 127.0.0.1 and two secrets over its stdin; any account of the computer can connect to that port:

    spawned  --  secret of the worker, 32 bytes  -->   host drops whoever does not know it
    spawned  <--  secret of the host, 32 bytes   --    worker ends if it is another one; then the messages of hil/host/frames.py
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from hil import child, system
from hil.errors import OpenFailed

START_S = 60.0  # of a process that imports torch first
END_S = 2.0  # a killed process that is not gone by then hangs in the kernel
SPARE_S = 10.0  # after a start: what the device does when it is opened comes first
SECRET_BYTES = 32
MOST_STRANGERS = 64
LOOK_S = 0.1


class Child(Protocol):
    """The process of a worker.

    pid: of the process. end: the socket to it, connected. printed: what it prints; closed by who reads it.
    """

    pid: int
    end: socket.socket
    printed: IO[bytes]

    def ended(self, within_s: float) -> bool:
        """True if it ends within that time."""

    def kill(self) -> None:
        """End it at once; it may be gone already."""

    def status(self) -> int | None:
        """Return how it ended: exit status, or the number of a signal, negative; None: it cannot be known."""

    def close(self) -> None:
        """End its pipe, and forget it: nothing can be asked afterwards."""


class Starter(Protocol):
    """Starts workers."""

    @property
    def running(self) -> bool:
        """False if it is of no use any more, and another one must be made."""

    def begin(self) -> Child:
        """Start a worker. Raises: OpenFailed: it does not start."""

    def attend(self) -> None:
        """Prepare the next start; call it often."""

    def close(self) -> None:
        """End what waits for the next start."""


def starter() -> Starter:
    """The way of this system."""
    return ForkServer() if system.FORKS else Spawner()


def _failed(error: Exception) -> OpenFailed:
    return OpenFailed("no process for the device can be started", where="host", got=str(error))


# ---- forked --------------------------------------------------------------------------------------------------------------


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

    def begin(self) -> Child:
        """Fork a worker. Raises: OpenFailed: the fork server ended, or gives no answer."""
        ours, theirs = socket.socketpair()
        alive, ends_with_us = os.pipe()
        printed, output = os.pipe()
        try:
            pid = int(self._asked(b"fork", [theirs.fileno(), alive, output]))
            return Forked(pid, self, ours, ends_with_us, printed)
        except (OSError, ValueError) as error:
            ours.close()
            os.close(ends_with_us)
            os.close(printed)
            raise _failed(error) from error
        finally:
            theirs.close()
            os.close(alive)
            os.close(output)

    def attend(self) -> None:
        """Do nothing: a fork needs no preparation."""

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
                self._control.settimeout(START_S)
                if not self._control.recv(64):
                    raise OSError("the fork server ended")
                self._ready = True
            self._control.settimeout(END_S)
            socket.send_fds(self._control, [message], list(files))
            answer = self._control.recv(64)
            if not answer:
                raise OSError("the fork server ended")
            return answer


class Forked:
    """A Child of the fork server.

    Args:
        pid: of the process.
        forks: its parent.
        end: of the socket to it.
        alive: pipe that the worker sees the end of when this process ends.
        printed: pipe with what it prints.

    Raises:
        OSError: the system gives no handle of it.
    """

    def __init__(self, pid: int, forks: ForkServer, end: socket.socket, alive: int, printed: int) -> None:
        self.pid, self.end, self._forks, self._alive = pid, end, forks, alive
        self._process = system.Process(pid)
        if self._process.handle is None:
            raise OSError(f"no handle of process {pid}")
        self.printed: IO[bytes] = os.fdopen(printed, "rb")

    def ended(self, within_s: float) -> bool:
        """True if it ends within that time."""
        return self._process.gone(within_s)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def status(self) -> int | None:
        """Return how it ended."""
        return self._forks.status(self.pid)

    def close(self) -> None:
        """Forget it."""
        os.close(self._alive)
        self._process.close()


# ---- spawned -------------------------------------------------------------------------------------------------------------


class Spawner:
    """Starts each worker as a program of its own. One that has done its imports waits, so that a crash is repaired at once."""

    running = True

    def __init__(self) -> None:
        self._spare: subprocess.Popen[bytes] | None = _spawned()
        self._due_s = 0.0

    def begin(self) -> Child:
        """Take the one that waits, or start one. Raises: OpenFailed: it does not start, or gives no answer."""
        spare, self._spare = self._spare, None
        self._due_s = time.monotonic() + SPARE_S
        try:
            process = spare if spare is not None and spare.poll() is None else _spawned()
        except OSError as error:
            raise _failed(error) from error
        try:
            return Spawned(process, _met(process))
        except OSError as error:
            process.kill()
            _ended(process, END_S)
            assert process.stderr is not None
            said = process.stderr.read().decode("utf-8", "replace").split("\n")
            raise _failed(OSError(f"{error}; {' '.join(line for line in said[-2:] if line)[:200]}")) from error

    def attend(self) -> None:
        """Start the next one, a while after the last was taken."""
        if self._spare is None and time.monotonic() > self._due_s:
            self._due_s = time.monotonic() + SPARE_S
            with suppress(OSError):  # a start that is needed says what is wrong
                self._spare = _spawned()

    def close(self) -> None:
        """End the one that waits."""
        if self._spare is not None:
            self._spare.kill()
            _ended(self._spare, END_S)


class Spawned:
    """A Child that is a program of its own.

    Args:
        process: its stdin ends with this process, its stderr is what it prints.
        end: of the socket to it.
    """

    def __init__(self, process: subprocess.Popen[bytes], end: socket.socket) -> None:
        assert process.stderr is not None
        self.pid, self.end, self._process, self.printed = process.pid, end, process, process.stderr

    def ended(self, within_s: float) -> bool:
        """True if it ends within that time."""
        return _ended(self._process, within_s)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def status(self) -> int | None:
        """Return how it ended."""
        return self._process.poll()

    def close(self) -> None:
        """Forget it."""
        assert self._process.stdin is not None
        self._process.stdin.close()


def _spawned() -> subprocess.Popen[bytes]:
    """A program that imports what a worker needs, and waits to be told a port; its stdout is ours."""
    return subprocess.Popen(
        child.command("hil.host.spawned"), stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=Path(sys.executable).anchor, env=child.environment(), **system.apart(),
    )  # fmt: skip


def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
    return process.poll() is not None


def _met(process: subprocess.Popen[bytes]) -> socket.socket:
    """Listen, tell the process where, and return the connection to it.

    Raises:
        OSError: it ended, or does not connect in time.
    """
    ours, theirs = secrets.token_bytes(SECRET_BYTES), secrets.token_bytes(SECRET_BYTES)
    with socket.socket() as door:
        system.listen_again(door)
        door.bind(("127.0.0.1", 0))
        door.listen()
        door.settimeout(LOOK_S)  # who is gone again before he is let in holds up nobody
        told = {"port": door.getsockname()[1], "host": ours.hex(), "worker": theirs.hex()}
        assert process.stdin is not None
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        end = _let_in(door, theirs, process)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.sendall(ours)
    return end


def _let_in(door: socket.socket, secret: bytes, process: subprocess.Popen[bytes]) -> socket.socket:
    """The connection of whoever knows the secret; one that says nothing holds up nobody."""
    until_s = time.monotonic() + START_S
    waiting: list[socket.socket] = []
    found: socket.socket | None = None
    try:
        while found is None:
            if process.poll() is not None:
                raise OSError(f"it ended with status {process.returncode}")
            if time.monotonic() > until_s:
                raise OSError(f"it does not connect within {START_S:g} s")
            for one in select.select([door, *waiting], [], [], LOOK_S)[0]:
                if one is door:
                    with suppress(OSError):
                        waiting.append(door.accept()[0])
                    if len(waiting) > MOST_STRANGERS:
                        waiting.pop(0).close()
                elif one in waiting:
                    waiting.remove(one)
                    if _knows(one, secret):
                        found = one
                    else:
                        one.close()
    finally:
        for one in waiting:
            one.close()
    return found


def _knows(one: socket.socket, secret: bytes) -> bool:
    """True if a connection from which something has arrived begins with the secret."""
    try:
        return hmac.compare_digest(one.recv(SECRET_BYTES), secret)
    except OSError:
        return False
