"""A virtual bench: simulated instruments wired to the twin of a node, served over real transports.

    build(description)   in this process         -> RunningBench
    spawn(description)   in a process of its own -> ServedBench

    python -m sim_devices.bench      stdin:  the description, one line of JSON; then it stays open: its end means that the
                                             parent is gone, and `linger_s` later the bench ends
                                     stdout: one line {"resources": {box: VISA resource}, "sockets": ..., "control": ...}
                                             or {"error": {...}}, the refusal as it was raised

A bench in its own process is to a trainer what a table full of boxes is: it goes on when the trainer dies, keeps its outputs as
they were, and answers nobody's Ctrl-C.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import IO, Self

from hil import child
from hil.errors import HilError, OpenFailed, Refused
from hil.files import loads
from sim_devices.control import ControlClient, ControlServer, refusal, refused
from sim_devices.own_process import ONE_THREAD, STOP_TIMEOUT_S, end, reasons_to_end, serve_until_told
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.socket import SocketServer
from sim_devices.virtual_bench import Assembly, VirtualBench, assemble

START_TIMEOUT_S = 60.0
STDERR_LINES = 20


class RunningBench:
    """A bench that is served from this process. Made by `build`.

    resources: box name -> VISA resource string, HiSLIP unless the bench has raw sockets alone. sockets: the raw ones.
    """

    def __init__(self, assembly: Assembly, description: VirtualBench) -> None:
        self.plant, self.boxes, self.faults, self.log = assembly.plant, assembly.boxes, assembly.faults, assembly.log
        self.resources: dict[str, str] = {}
        self.sockets: dict[str, str] = {}
        with ExitStack() as opened:
            self._serve(description, opened)
            self._servers = opened.pop_all()

    def _serve(self, description: VirtualBench, opened: ExitStack) -> None:
        for part in description.boxes:
            box = self.boxes[part.name]
            if description.transport in ("socket", "both"):
                raw = SocketServer(box, port=part.socket_port, faults=self.faults.of[part.name])
                opened.callback(raw.close)
                raw.start()
                self.sockets[part.name] = self.resources[part.name] = raw.resource
            if description.transport in ("hislip", "both"):
                hislip = HislipServer(box, port=part.hislip_port, faults=self.faults.of[part.name])
                opened.callback(hislip.close)
                hislip.start()
                self.resources[part.name] = hislip.resource
        self.control = ControlServer(self.plant, self.boxes, port=description.control_port, faults=self.faults)
        opened.callback(self.control.close)
        opened.callback(self.faults.heal)  # first of all: who waits because of a fault goes on, and can end
        self.control.start()

    def close(self) -> None:
        """End every server. May be called twice."""
        self._servers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def build(description: VirtualBench) -> RunningBench:
    """Make the boxes, wire them, serve them from this process.

    Raises:
        ConfigError: a class that cannot be imported, settings it does not take, a port that is taken.
    """
    return RunningBench(assemble(description), description)


class ServedBench:
    """A bench in a process of its own. Made by `spawn`; use it with `with`, or call `stop`.

    resources, sockets: as in RunningBench. control: the control port. pid: of the process.
    """

    def __init__(self, process: subprocess.Popen[str], stderr: IO[str], ready: Mapping[str, object]) -> None:
        self._process, self._stderr = process, stderr
        self.resources, self.sockets = _texts(ready["resources"]), _texts(ready["sockets"])
        host, port = _texts(ready["control"]).values()
        self.control = ControlClient(host, int(port))
        self.pid = process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def complaints(self) -> str:
        """The last lines that the process wrote to its stderr."""
        return _tail(self._stderr)

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


def spawn(description: VirtualBench, start_timeout_s: float = START_TIMEOUT_S) -> ServedBench:
    """Serve a bench from a new process, with one thread for torch; it can import what this process can.

    Raises:
        ConfigError, ...: what `build` refuses, as if it had been called here.
        OpenFailed: the process ended, or was not ready in time; `got` holds its last words.
    """
    stderr = tempfile.TemporaryFile("w+", prefix="virtual-bench-", suffix=".stderr")  # noqa: SIM115, closed by stop()
    process = subprocess.Popen(
        child.command("sim_devices.bench"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=child.environment(ONE_THREAD),
        start_new_session=True,  # Ctrl-C on the terminal is for the trainer, which then makes the outputs safe
    )
    try:
        return ServedBench(process, stderr, _await_ready(process, description.to_json(), stderr, start_timeout_s))
    except BaseException:
        process.kill()
        end(process)
        stderr.close()
        raise


def _await_ready(process: subprocess.Popen[str], description: str, stderr: IO[str], timeout_s: float) -> Mapping[str, object]:
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda out: lines.put(out.readline()), args=(process.stdout,), daemon=True).start()
    with suppress(BrokenPipeError):  # it ended already; its last words say why
        process.stdin.write(description + "\n")
        process.stdin.flush()
    try:
        line = lines.get(timeout=timeout_s)
    except queue.Empty:
        raise _not_started(f"nothing after {timeout_s:g} s", stderr) from None
    if not line.endswith("\n"):
        process.wait(STOP_TIMEOUT_S)
        raise _not_started(f"exit status {process.returncode}", stderr)
    ready: Mapping[str, object] = loads(line, "virtual bench", OpenFailed)
    if "error" in ready:
        raise refused(ready["error"], "virtual bench")
    return ready


def _not_started(what: str, stderr: IO[str]) -> OpenFailed:
    words = _tail(stderr)
    return OpenFailed(
        "the process of the virtual bench did not start",
        where="virtual bench",
        got=f"{what}; its last words:\n{words}" if words else what,
        outputs="none; nothing was opened",
    )


def _tail(stderr: IO[str]) -> str:
    stderr.seek(0)
    return "".join(stderr.readlines()[-STDERR_LINES:]).rstrip()


def _texts(value: object) -> dict[str, str]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        raise OpenFailed("not what a virtual bench says first", where="virtual bench", got=str(value)[:80])
    return {str(name): str(text) for name, text in value.items()}


# -- The process of a served bench ------------------------------------------------------------------------------------


def main() -> int:
    """Serve until told to end. Exit status: 0 ended as asked, 2 refused."""
    reasons = reasons_to_end()
    try:
        description = VirtualBench.from_json(sys.stdin.readline())
        bench = build(description)
    except Refused as error:
        print(json.dumps({"error": refusal(error)}), flush=True)
        return 2
    with bench:
        ready = {"resources": bench.resources, "sockets": bench.sockets, "control": bench.control.address}
        print(json.dumps(ready), flush=True)
        serve_until_told(reasons, bench.control.stopped, description.linger_s, lambda event: _note(bench, event))
    return 0


def _note(bench: RunningBench, event: str) -> None:
    """A line in the bench's own log: in which state were the outputs?"""
    bench.log.note(
        {"time_s": time.time(), "event": event, "outputs": bench.control.outputs(), "extremes": bench.control.extremes()}
    )


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is closed; taking torch apart would cost the trainer most of a second
