"""A spiking board on a serial line, in a process of its own: to a trainer, a box behind a serial port.

    python -m sim_devices.spiking_bench      stdin:  the description, one line of JSON; then it stays open: its end means that
                                                     the parent is gone, and `linger_s` later the board ends
                                             stdout: one line {"port": "/tmp/...", "control": [host, port]}
                                                     or {"error": {...}}, as it was raised

{"neuron": {"threshold_mismatch": 0.1, ...}, "seed": 3, "serial": "SB0001", "baud": 2000000,
 "faults": [{"box": "board", "kind": "flip", "rate": 0.001}, ...]}
"""

from __future__ import annotations

import inspect
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hil import child
from hil.errors import ConfigError, HilError, OpenFailed, Refused
from hil.files import loads
from sim_devices.control import ControlClient, ControlServer, refusal, refused
from sim_devices.instruments.faults import FaultSchedule
from sim_devices.instruments.spiking_board import LARGEST, SpikingBoard
from sim_devices.lif_array import Neuron
from sim_devices.own_process import ONE_THREAD, end, reasons_to_end, serve_until_told
from sim_devices.spiking_array import TwinChip
from sim_devices.switch_log import Switched, SwitchLog
from sim_devices.transports.pty import PtyServer

START_TIMEOUT_S = 60.0
BOARD = "board"  # its name at the control port
WATCH_S = 0.1


@dataclass(frozen=True, slots=True)
class VirtualBoard:
    """What the board is.

    neuron: design and spread of its chip. seed: of fabrication and noise. serial: serial number. largest: bytes in a payload.
    neurons: how many can be allocated. baud: of the line, None for unlimited. linger_s: how long it outlives its parent.
    log_path: a file that gets a line when the board is armed or disarmed, when the parent is gone, and at the end. faults:
    scheduled from the start, their box is "board"; see `sim_devices.instruments.faults`.
    """

    neuron: Neuron = field(default_factory=Neuron)
    seed: int = 0
    serial: str = "SB0001"
    largest: int = LARGEST
    neurons: int = 1 << 20
    baud: int | None = None
    control_port: int = 0
    linger_s: float = 0.0
    log_path: str | None = None
    faults: Sequence[Mapping[str, object]] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> VirtualBoard:
        """Raises: ConfigError: not such a description."""
        try:
            table = dict(loads(text, "virtual board", ConfigError))
            neuron = Neuron(**_known(Neuron, table.pop("neuron", {})))
            faults = tuple(dict(fault) for fault in table.pop("faults", ()))
            return cls(neuron, faults=faults, **_known(cls, table))
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError("not the description of a board", where="virtual board", got=text[:200]) from error


def _known(made: type, table: Mapping[str, Any]) -> Mapping[str, Any]:
    names = list(inspect.signature(made).parameters)
    for name in table:
        if name not in names:
            raise ConfigError("no such setting", where="virtual board", got=name, allowed=", ".join(names))
    return table


class _Surroundings:
    """What the control port shows beside the board itself: there is no plant, so there is nothing to set."""

    def __init__(self, log: SwitchLog) -> None:
        self._log = log

    @property
    def log(self) -> tuple[Switched, ...]:
        return self._log.entries

    def paths(self) -> tuple[str, ...]:
        return ()

    def get(self, path: str) -> float:
        raise ConfigError("a board has no such parameter", where="virtual board", got=path, todo="describe another board")

    def set(self, path: str, value: float) -> None:
        self.get(path)

    def snapshot(self) -> Mapping[str, object]:
        return {}

    def restore(self, state: Mapping[str, object]) -> None:
        pass

    def extremes(self) -> Mapping[str, object]:
        return {}


class RunningBoard:
    """A board that is served from this process. port: its serial port. control: its control port.

    Raises:
        ConfigError: what cannot be made, or a port that is taken.
    """

    def __init__(self, description: VirtualBoard) -> None:
        self.log = SwitchLog(description.log_path)
        self.faults = FaultSchedule({BOARD: "board"}, description.seed)
        self.faults.add_all(description.faults)
        chip = TwinChip(description.neuron, description.seed)
        self.board = SpikingBoard(
            chip, serial=description.serial, largest=description.largest, neurons=description.neurons, log=self.log
        )
        self._closed = threading.Event()
        with ExitStack() as opened:
            server = PtyServer.with_faults(self.board, self.faults.of[BOARD], description.baud)
            opened.callback(server.close)
            surroundings = _Surroundings(self.log)
            self.control = ControlServer(surroundings, {BOARD: self.board}, port=description.control_port, faults=self.faults)
            opened.callback(self.control.close)
            opened.callback(self.faults.heal)  # who waits because of a fault goes on, and can end
            opened.callback(self._closed.set)
            self._servers = opened.pop_all()
        self.port = server.port
        server.start()
        self.control.start()
        threading.Thread(target=self._watch, name="watchdog of the board", daemon=True).start()

    def _watch(self) -> None:
        """The watchdog trips without being asked, and the log is to say when."""
        while not self._closed.wait(WATCH_S):
            self.board.armed  # noqa: B018, looking is what trips it

    def note(self, event: str) -> None:
        """A line in the log: was it armed?"""
        self.log.note({"time_s": time.time(), "event": event, "outputs": self.control.outputs()})

    def close(self) -> None:
        """May be called twice."""
        self._servers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def board_server(description: VirtualBoard) -> RunningBoard:
    """The board, served from this process; use it with `with`."""
    return RunningBoard(description)


class ServedBoard:
    """A board in a process of its own. Made by `spawn_board`; use it with `with`, or call `stop`. port: its serial port.
    control: its control port. pid: of the process."""

    def __init__(self, process: subprocess.Popen[str], ready: Mapping[str, Any]) -> None:
        self._process, self.port = process, str(ready["port"])
        self.pid = process.pid
        host, port = ready["control"]
        self.control = ControlClient(str(host), int(port))

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process. May be called twice."""
        with suppress(HilError):  # it may be gone already
            self.control.stop()
        self.control.close()
        end(self._process)
        self._tidy()

    def kill(self) -> None:
        """End the process at once, as a power cut would: SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._tidy()

    def _tidy(self) -> None:
        """Who is killed leaves the name of its port."""
        Path(self.port).unlink(missing_ok=True)
        with suppress(OSError):
            Path(self.port).parent.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def spawn_board(description: VirtualBoard | None = None, start_timeout_s: float = START_TIMEOUT_S) -> ServedBoard:
    """Serve a board from a new process, with one thread for torch. It ends with this process, whatever ends that.

    Raises:
        ConfigError: what cannot be made.
        OpenFailed: the process ended, or was not ready in time; its stderr says why.
    """
    process = subprocess.Popen(
        child.command("sim_devices.spiking_bench"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child.environment(ONE_THREAD),
        start_new_session=True,  # Ctrl-C on the terminal is for the trainer, which then makes the board safe
    )
    try:
        return ServedBoard(process, _await_ready(process, (description or VirtualBoard()).to_json(), start_timeout_s))
    except BaseException:
        process.kill()
        end(process)
        raise


def _await_ready(process: subprocess.Popen[str], description: str, timeout_s: float) -> Mapping[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda out: lines.put(out.readline()), args=(process.stdout,), daemon=True).start()
    with suppress(BrokenPipeError):  # it ended already
        process.stdin.write(description + "\n")
        process.stdin.flush()
    try:
        line = lines.get(timeout=timeout_s)
    except queue.Empty:
        line = ""
    if not line.endswith("\n"):
        raise OpenFailed(
            "the process of the board did not start", where="virtual board", got=f"exit status {process.poll()}",
            allowed=f"ready within {timeout_s:g} s", outputs="none; nothing was opened", todo="read what it wrote to stderr",
        )  # fmt: skip
    ready: Mapping[str, Any] = loads(line, "virtual bench", OpenFailed)
    if "error" in ready:
        raise refused(ready["error"], "virtual board")
    return ready


def main() -> int:
    """Serve until told to end. Exit status: 0 ended as asked, 2 refused."""
    reasons = reasons_to_end()
    try:
        description = VirtualBoard.from_json(sys.stdin.readline())
        board = RunningBoard(description)
    except Refused as error:
        print(json.dumps({"error": refusal(error)}), flush=True)
        return 2
    with board:
        print(json.dumps({"port": board.port, "control": board.control.address}), flush=True)
        serve_until_told(reasons, board.control.stopped, description.linger_s, board.note)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is closed; a thread may still wait for the parent
