"""A spiking board on a serial line, in a process of its own: to a trainer, a box behind a serial port.

The process says {"port": "/tmp/..."}; what describes it:

{"neuron": {"threshold_mismatch": 0.1, ...}, "seed": 3, "serial": "SB0001", "baud": 2000000,
 "faults": [{"box": "board", "kind": "flip", "rate": 0.001}, ...]}
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hil.errors import ConfigError
from hil.files import loads
from sim_devices.bench.control import ControlServer
from sim_devices.bench.description import Unwired
from sim_devices.bench.process import START_TIMEOUT_S, Running, Served, serve
from sim_devices.instruments.faults import FaultSchedule
from sim_devices.instruments.spiking_board import LARGEST, SpikingBoard
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip
from sim_devices.switch_log import Switched, SwitchLog
from sim_devices.transports.pty import PtyServer

BOARD = "board"  # its name at the control port
WATCH_S = 0.1


@dataclass(frozen=True, slots=True)
class VirtualBoard:
    """Description of a simulated board.

    Args:
        neuron: design and spread of its chip.
        seed: of fabrication and noise.
        serial: serial number.
        largest: bytes in a payload.
        neurons: how many can be allocated.
        baud: of the line; none: unlimited.
        linger_s: how long it outlives its parent.
        log_path: a file that gets a line when the board is armed or disarmed, when the parent is gone, and at the end.
        faults: scheduled from the start, their box is "board"; see `sim_devices.instruments.faults`.
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
        """Write the description as JSON, for the process that serves it."""
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


class _Surroundings(Unwired):
    """The part of the control port beside the board itself: there is no plant, so there is nothing to set."""

    def __init__(self, log: SwitchLog) -> None:
        self._log = log

    @property
    def log(self) -> tuple[Switched, ...]:
        return self._log.entries

    def get(self, path: str) -> float:
        raise ConfigError("a board has no such parameter", where="virtual board", got=path, todo="describe another board")


class RunningBoard(Running):
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

    def addresses(self) -> Mapping[str, object]:
        """Return {"port": path of the serial line}."""
        return {"port": self.port}


def board_server(description: VirtualBoard) -> RunningBoard:
    """The board, served from this process; use it with `with`."""
    return RunningBoard(description)


class ServedBoard(Served):
    """A board in a process of its own. Made by `spawn_board`. port: its serial port."""

    def __init__(self, description: VirtualBoard, start_timeout_s: float) -> None:
        super().__init__("sim_devices.bench.board", "virtual board", description.to_json(), start_timeout_s)
        self.port = str(self.ready["port"])

    def stop(self) -> None:
        """End the process in order, and remove the folder of its port."""
        super().stop()
        self._tidy()

    def kill(self) -> None:
        """Kill the process, and remove the folder of its port."""
        super().kill()
        self._tidy()

    def _tidy(self) -> None:
        """Remove the name of its port, which a killed process leaves behind."""
        Path(self.port).unlink(missing_ok=True)
        with suppress(OSError):
            Path(self.port).parent.rmdir()


def spawn_board(description: VirtualBoard | None = None, start_timeout_s: float = START_TIMEOUT_S) -> ServedBoard:
    """Serve a board from a new process, with one thread for torch. It ends with this process, whatever ends that.

    Raises:
        ConfigError: what cannot be made.
        OpenFailed: the process ended, or was not ready in time; `got` holds its last words.
    """
    return ServedBoard(description or VirtualBoard(), start_timeout_s)


def _made(text: str) -> tuple[RunningBoard, float]:
    description = VirtualBoard.from_json(text)
    return RunningBoard(description), description.linger_s


if __name__ == "__main__":
    serve(_made)
