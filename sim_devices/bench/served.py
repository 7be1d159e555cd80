"""A virtual bench: simulated instruments wired to the twin of a node, served over real transports.

build(description)   in this process         -> RunningBench
spawn(description)   in a process of its own -> ServedBench, {"resources": {box: VISA resource},
                                                         "sockets": {...}, "vxi11": {...}, "control": [host, port]}
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from hil.errors import ConfigError
from sim_devices.bench.control import ControlServer
from sim_devices.bench.description import Assembly, Transport, VirtualBench, assemble
from sim_devices.bench.process import START_TIMEOUT_S, Running, Served, serve
from sim_devices.instruments.timing import timed
from sim_devices.transports.announce import announced
from sim_devices.transports.grpc import Called, GrpcServer
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.line import Line
from sim_devices.transports.pty import PtyServer
from sim_devices.transports.socket import Loaded, SocketServer
from sim_devices.transports.vxi11 import Vxi11Server

SERVED: Mapping[Transport, tuple[str, ...]] = {
    "hislip": ("hislip",), "socket": ("socket",), "vxi11": ("vxi11",), "both": ("hislip", "socket"),
    "all": ("hislip", "socket", "vxi11"), "serial": ("serial",),
}  # fmt: skip


class RunningBench(Running):
    """A bench that is served from this process. Made by `build`.

    resources: box name -> VISA resource string: HiSLIP if it is served, else VXI-11, else the raw socket; the name of the port
        of a box on a serial line; "LIBRARY::HOST:PORT" of one behind a library.
    sockets, vxi11: those of one kind.
    """

    def __init__(self, assembly: Assembly, description: VirtualBench) -> None:
        self.plant, self.boxes, self.faults, self.log = assembly.plant, assembly.boxes, assembly.faults, assembly.log
        self.resources: dict[str, str] = {}
        self.sockets: dict[str, str] = {}
        self.vxi11: dict[str, str] = {}
        with ExitStack() as opened:
            self._serve(description, opened)
            self._servers = opened.pop_all()

    def _serve(self, description: VirtualBench, opened: ExitStack) -> None:
        transports = SERVED[description.transport]
        for number, part in enumerate(description.boxes, 1):
            box, faults = self.boxes[part.name], self.faults.of[part.name]
            if isinstance(box, Called):
                self.resources[part.name] = _started(GrpcServer(box, port=part.socket_port), opened)
                continue
            if not hasattr(box, "feed"):  # what speaks bytes has its pace by the baud rate
                box = timed(box, getattr(box, "timing", None))
            host = f"127.0.0.{number}" if description.port_mapper else "127.0.0.1"
            if hasattr(box, "feed") or "serial" in transports:
                if faults.on_wire:
                    raise ConfigError(
                        "faults of the wire are not simulated on a serial line of text", where=f"box {part.name}",
                        got="faults", allowed="faults of the wires of a network",
                    )  # fmt: skip
                line = PtyServer(box if hasattr(box, "feed") else Line(box), part.baud)  # type: ignore[arg-type]
                self.resources[part.name] = line.port
                opened.callback(line.close)
                line.start()
                continue
            if isinstance(loaded := self.boxes[part.name], Loaded):
                raw = SocketServer(box, host, part.socket_port, faults=faults)
                _started(raw, opened)
                self.resources[part.name] = f"{loaded.library()}::{host}:{raw.port}"
                continue
            if "socket" in transports:
                raw = SocketServer(box, host, part.socket_port, faults=faults)
                self.sockets[part.name] = self.resources[part.name] = _started(raw, opened)
            if "vxi11" in transports:
                core = Vxi11Server(box, host, part.vxi11_port, faults)
                opened.callback(core.close)
                if description.port_mapper:
                    core.map_port()
                self.vxi11[part.name] = self.resources[part.name] = _started(core, opened)
            if "hislip" in transports:
                self.resources[part.name] = _started(HislipServer(box, host, part.hislip_port, faults), opened)
        if description.announce:
            kinds = (self.resources, self.vxi11, self.sockets)
            addresses = {name: [kind[name] for kind in kinds if name in kind] for name in self.boxes}
            opened.enter_context(announced(self.boxes, addresses))
        self.control = ControlServer(self.plant, self.boxes, port=description.control_port, faults=self.faults)
        opened.callback(self.control.close)
        opened.callback(self.faults.heal)  # first of all: who waits because of a fault goes on, and can end
        self.control.start()

    def addresses(self) -> Mapping[str, object]:
        """Return the VISA resources, all and those of one kind, each by the name of its box."""
        return {"resources": self.resources, "sockets": self.sockets, "vxi11": self.vxi11}


def _started(server: HislipServer | SocketServer | Vxi11Server | GrpcServer, opened: ExitStack) -> str:
    opened.callback(server.close)
    server.start()
    return server.resource


def build(description: VirtualBench) -> RunningBench:
    """Make the boxes, wire them, serve them from this process.

    Raises:
        ConfigError: a class that cannot be imported, settings it does not take, a port that is taken.
    """
    return RunningBench(assemble(description), description)


class ServedBench(Served):
    """A bench in a process of its own. Made by `spawn`. resources, sockets, vxi11: as in RunningBench."""

    def __init__(self, description: VirtualBench, start_timeout_s: float) -> None:
        super().__init__("sim_devices.bench.served", "virtual bench", description.to_json(), start_timeout_s)
        self.resources: dict[str, str] = self.ready["resources"]
        self.sockets: dict[str, str] = self.ready["sockets"]
        self.vxi11: dict[str, str] = self.ready["vxi11"]


def spawn(description: VirtualBench, start_timeout_s: float = START_TIMEOUT_S) -> ServedBench:
    """Serve a bench from a new process, with one thread for torch; it can import what this process can.

    Raises:
        ConfigError, ...: what `build` refuses, as if it had been called here.
        OpenFailed: the process ended, or was not ready in time; `got` holds its last words.
    """
    return ServedBench(description, start_timeout_s)


def _made(text: str) -> tuple[RunningBench, float]:
    description = VirtualBench.from_json(text)
    return build(description), description.linger_s


if __name__ == "__main__":
    serve(_made)
