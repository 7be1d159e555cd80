"""A spiking board on a serial line, in a process of its own: to a trainer, a box behind a serial port.

    python -m sim_devices.spiking_bench      stdin:  the description, one line of JSON; then it stays open: its end means that
                                                     the parent is gone, and the board goes with it
                                             stdout: one line {"port": "/dev/pts/7"} or {"error": {...}}, as it was raised

{"neuron": {"threshold_mismatch": 0.1, ...}, "seed": 3, "serial": "SB0001", "baud": 2000000}
"""

from __future__ import annotations

import inspect
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hil.errors import ConfigError, OpenFailed, Refused
from sim_devices.control import refusal, refused
from sim_devices.instruments.spiking_board import LARGEST, SpikingBoard
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip
from sim_devices.transports.pty import PtyServer

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class VirtualBoard:
    """What the board is.

    neuron: design and spread of its chip. seed: of fabrication and noise. serial: serial number. largest: bytes in a payload.
    neurons: how many can be allocated. baud: of the line, None for unlimited.
    """

    neuron: Neuron = field(default_factory=Neuron)
    seed: int = 0
    serial: str = "SB0001"
    largest: int = LARGEST
    neurons: int = 1 << 20
    baud: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> VirtualBoard:
        """Raises: ConfigError: not such a description."""
        try:
            table = dict(json.loads(text))
            neuron = Neuron(**_known(Neuron, table.pop("neuron", {})))
            return cls(neuron, **_known(cls, table))
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError("not the description of a board", where="virtual board", got=text[:200]) from error


def _known(made: type, table: Mapping[str, Any]) -> Mapping[str, Any]:
    names = list(inspect.signature(made).parameters)
    for name in table:
        if name not in names:
            raise ConfigError("no such setting", where="virtual board", got=name, allowed=", ".join(names))
    return table


def board_server(description: VirtualBoard) -> PtyServer:
    """The board served from this process, not started yet."""
    chip = TwinChip(description.neuron, description.seed)
    board = SpikingBoard(chip, serial=description.serial, largest=description.largest, neurons=description.neurons)
    return PtyServer(board, description.baud)


class ServedBoard:
    """A board in a process of its own. Made by `spawn_board`; use it with `with`, or call `stop`. port: its serial port."""

    def __init__(self, process: subprocess.Popen[str], port: str) -> None:
        self._process, self.port = process, port
        self.pid = process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process. May be called twice."""
        _end(self._process)

    def kill(self) -> None:
        """End the process at once, as a power cut would: SIGKILL."""
        self._process.kill()
        self._process.wait()

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
    paths = [str(Path(entry or os.curdir).resolve()) for entry in sys.path]
    process = subprocess.Popen(
        [sys.executable, "-m", "sim_devices.spiking_bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C on the terminal is for the trainer, which then makes the board safe
    )
    try:
        return ServedBoard(process, _await_port(process, (description or VirtualBoard()).to_json(), start_timeout_s))
    except BaseException:
        process.kill()
        _end(process)
        raise


def _await_port(process: subprocess.Popen[str], description: str, timeout_s: float) -> str:
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
    ready = json.loads(line)
    if "error" in ready:
        raise refused(ready["error"], "virtual board")
    return str(ready["port"])


def _end(process: subprocess.Popen[str]) -> None:
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


def main() -> int:
    """Serve until stdin ends. Exit status: 0 ended as asked, 2 refused."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server = board_server(VirtualBoard.from_json(sys.stdin.readline()))
    except Refused as error:
        print(json.dumps({"error": refusal(error)}), flush=True)
        return 2
    with server:
        print(json.dumps({"port": server.port}), flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
