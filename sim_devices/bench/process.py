"""A simulation in a process of its own: how its parent starts it, and what ends it.

    python -m MODULE      stdin:  the description, one line of JSON; then it stays open: its end means that the parent is gone
                          stdout: one line {..., "control": [host, port]}, the addresses,
                                  or {"error": {...}}, the refusal as it was raised

serves  --parent gone-->  lingers `linger_s`  --time over-->  ends
serves, lingers           --SIGTERM, or "stop" at the control port-->  ends          Ctrl-C is for the trainer, not for it

To a trainer such a process is what boxes on a table are: it goes on when the trainer dies, and keeps its outputs as they were.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from hil import child
from hil.errors import HilError, OpenFailed, Refused
from hil.files import loads
from hil.system import apart
from sim_devices.bench.control import ControlClient, ControlServer, refusal, refused
from sim_devices.switch_log import SwitchLog

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
STDERR_LINES = 20
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PARENT_GONE = "parent gone"
Reasons = queue.SimpleQueue[str]


class Served:
    """A process that serves MODULE; use it with `with`, or call `stop`. control: its control port. pid: of the process.

    Args:
        what: how messages call it.
        description: a line of JSON.

    Raises:
        ConfigError, ...: what the process refuses, as if it had been refused here.
        OpenFailed: the process ended, or was not ready in time; `got` holds its last words.
    """

    def __init__(self, module: str, what: str, description: str, start_timeout_s: float) -> None:
        self._what = what
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", prefix=f"{what.replace(' ', '-')}-", suffix=".stderr")  # noqa: SIM115, closed by stop()
        self._process = subprocess.Popen(
            child.command(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=child.environment(ONE_THREAD),
            **apart(),  # Ctrl-C on the terminal is for the trainer, which then makes the outputs safe
        )
        self.pid = self._process.pid
        try:
            self.ready = self._await_ready(description, start_timeout_s)
            host, port = self.ready["control"]
        except BaseException:
            self._process.kill()
            end(self._process)
            self._stderr.close()
            raise
        self.control = ControlClient(str(host), int(port))

    def _await_ready(self, description: str, timeout_s: float) -> Mapping[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        with suppress(BrokenPipeError):  # it ended already; its last words say why
            stdin.write(description + "\n")
            stdin.flush()
        try:
            line = lines.get(timeout=timeout_s)
        except queue.Empty:
            raise self._not_started(f"nothing after {timeout_s:g} s") from None
        if not line.endswith("\n"):
            self._process.wait(STOP_TIMEOUT_S)
            raise self._not_started(f"exit status {self._process.returncode}")
        try:
            ready: Mapping[str, Any] = dict(loads(line, self._what, OpenFailed))
        except (OpenFailed, ValueError, TypeError):
            raise self._not_started(f"{line[:80]!r} in place of its addresses") from None
        if "error" in ready:
            raise refused(ready["error"], self._what)
        return ready

    def _not_started(self, what: str) -> OpenFailed:
        words = self.complaints()
        return OpenFailed(
            f"the process of the {self._what} did not start", where=self._what,
            got=f"{what}; its last words:\n{words}" if words else what, outputs="none; nothing was opened",
        )  # fmt: skip

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def complaints(self) -> str:
        """The last lines that the process wrote to its stderr."""
        self._stderr.seek(0)
        return "".join(self._stderr.readlines()[-STDERR_LINES:]).rstrip()

    def stop(self) -> None:
        """End the process, politely at first. May be called twice."""
        with suppress(HilError):  # it may be gone already
            self.control.stop()
        self.control.close()
        end(self._process)
        self._stderr.close()

    def kill(self) -> None:
        """End the process at once, as a power cut would: SIGKILL."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def end(process: subprocess.Popen[str]) -> None:
    """Close its pipes and wait; ask twice, then stop asking."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    for ask in (process.terminate, process.kill):
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            ask()
    process.wait()


# -- In the process ---------------------------------------------------------------------------------------------------


class Running(ABC):
    """The object that serves a bench from this process; a subclass opens the servers.

    Args:
        control: its control port.
        log: of its outputs.
    """

    control: ControlServer
    log: SwitchLog
    _servers: ExitStack

    @abstractmethod
    def addresses(self) -> Mapping[str, object]:
        """Return the addresses that are served, but for the control port."""

    def note(self, event: str) -> None:
        """A line in the log: in which state were the outputs?"""
        outputs, extremes = self.control.outputs(), self.control.extremes()
        self.log.note({"time_s": time.time(), "event": event, "outputs": outputs, "extremes": extremes})

    def close(self) -> None:
        """End every server. May be called twice."""
        self._servers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def serve(make: Callable[[str], tuple[Running, float]]) -> NoReturn:
    """Serve until told to end, then end the process. Exit status: 0 ended as asked, 2 refused.

    Args:
        make: a description -> what is served, and how many seconds it outlives its parent.
    """
    status = _serve(make)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is closed; taking torch apart would cost the trainer most of a second


def _serve(make: Callable[[str], tuple[Running, float]]) -> int:
    reasons = _reasons_to_end()
    try:
        running, linger_s = make(sys.stdin.readline())
    except Refused as error:
        print(json.dumps({"error": refusal(error)}), flush=True)
        return 2
    with running:
        print(json.dumps({**running.addresses(), "control": running.control.address}), flush=True)
        _serve_until_told(reasons, running, linger_s)
    return 0


def _reasons_to_end() -> Reasons:
    """Ignore Ctrl-C from now on, and take SIGTERM for a reason to end."""
    reasons: Reasons = queue.SimpleQueue()

    def on_term(number: int, frame: FrameType | None) -> None:
        reasons.put("SIGTERM")

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_term)
    return reasons


def _serve_until_told(reasons: Reasons, running: Running, linger_s: float) -> None:
    def parent() -> None:
        sys.stdin.read()
        reasons.put(PARENT_GONE)

    def control() -> None:
        running.control.stopped.wait()
        reasons.put("control port")

    for watch in (parent, control):
        threading.Thread(target=watch, daemon=True).start()
    why = reasons.get()
    if why == PARENT_GONE and linger_s:
        running.note(why)
        with suppress(queue.Empty):
            why = reasons.get(timeout=linger_s)
    running.note(f"end: {why}")
