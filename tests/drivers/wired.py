"""A wire of any kind to a simulated box, which counts the messages that were sent."""

from __future__ import annotations

from typing import Any

from scripted_link import MessageLink

from drivers.links.serial_link import SerialLink
from drivers.links.visa_link import VisaLink
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.line import Line
from sim_devices.transports.pty import PtyServer
from sim_devices.transports.socket import SocketServer
from sim_devices.transports.vxi11 import Vxi11Server

SERVERS: dict[str, Any] = {"hislip": HislipServer, "socket": SocketServer, "vxi11": Vxi11Server}


class Counting(MessageLink):
    """Counts the messages that go to a box over a real wire, or in this process."""

    def __init__(self, box: Any, wire: str) -> None:
        super().__init__(box)
        self._server: Any = None
        self.link: Any = self
        if wire == "memory":
            return
        if wire == "serial":
            self._server = PtyServer(box if hasattr(box, "feed") else Line(box))
            self._server.start()
            self.link = SerialLink(self._server.port, terminator=b"\n")
        else:
            self._server = SERVERS[wire](box)
            self._server.start()
            self.link = VisaLink(self._server.resource, backend="@py", terminator=getattr(box, "terminator", b"\n"))
        write = self.link.write
        self.link.write = lambda *parts: (self.sent.append(b""), write(*parts))[1]

    def done(self) -> None:
        if self._server is not None:
            self._server.close()
