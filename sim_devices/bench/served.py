"""A virtual bench: simulated instruments wired to the twin of a node, served over real transports.

build(description)   in this process         -> RunningBench
spawn(description)   in a process of its own -> ServedBench, {"resources": {box: VISA resource}, "sockets": {...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from sim_devices.bench.control import ControlServer
from sim_devices.bench.description import Assembly, VirtualBench, assemble
from sim_devices.bench.process import START_TIMEOUT_S, Running, Served, serve
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.socket import SocketServer


class RunningBench(Running):
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

    def addresses(self) -> Mapping[str, object]:
        """Return the VISA resources and the raw sockets, each by the name of its box."""
        return {"resources": self.resources, "sockets": self.sockets}


def build(description: VirtualBench) -> RunningBench:
    """Make the boxes, wire them, serve them from this process.

    Raises:
        ConfigError: a class that cannot be imported, settings it does not take, a port that is taken.
    """
    return RunningBench(assemble(description), description)


class ServedBench(Served):
    """A bench in a process of its own. Made by `spawn`. resources, sockets: as in RunningBench."""

    def __init__(self, description: VirtualBench, start_timeout_s: float) -> None:
        super().__init__("sim_devices.bench.served", "virtual bench", description.to_json(), start_timeout_s)
        self.resources: dict[str, str] = self.ready["resources"]
        self.sockets: dict[str, str] = self.ready["sockets"]


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
