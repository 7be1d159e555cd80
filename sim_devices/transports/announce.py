"""What is served, told by multicast DNS to the programs of this computer, as an LXI instrument tells its network.

    <maker> <model> <serial> (<box>)._hislip._tcp.local.     SRV: host and port     TXT: txtvers=1 Manufacturer=... Model=...
                                    ._vxi-11._tcp.local.                                 SerialNumber=... FirmwareVersion=...
                                    ._scpi-raw._tcp.local.

The port of _vxi-11 is 111 where a port mapper answers, else that of the core channel. On the loopback interface alone: nobody
else can reach what is served here. _lxi._tcp stands for the web page of an instrument, and a simulated one has none.

Source: LXI 1.5, 10.3 to 10.7 (services and TXT records); RFC 6762 (mDNS), RFC 6763 (services).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hil.errors import ConfigError
from sim_devices.instruments.box import Box

FACTS = ("Manufacturer", "Model", "SerialNumber", "FirmwareVersion")  # in the order of *IDN?
NAME_BYTES = 63
HISLIP = re.compile(r"TCPIP::([0-9.]+)::hislip0,(\d+)::INSTR")
VXI11 = re.compile(r"TCPIP::([0-9.]+)(?:,(\d+))?::inst0::INSTR")
SOCKET = re.compile(r"TCPIP::([0-9.]+)::(\d+)::SOCKET")
SERVICES = {"_hislip._tcp.local.": HISLIP, "_vxi-11._tcp.local.": VXI11, "_scpi-raw._tcp.local.": SOCKET}
PORT_MAPPER = "111"


@contextmanager
def announced(boxes: Mapping[str, Box], resources: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Announce while the context is open.

    Args:
        boxes: by name; each is asked who it is.
        resources: where each is served.

    Raises:
        ConfigError: the package zeroconf is not installed, or this computer has no multicast.
    """
    try:
        from zeroconf import Error, NonUniqueNameException, ServiceInfo, Zeroconf
    except ImportError as error:
        raise ConfigError(
            "announcing needs the package zeroconf", where="virtual bench: announce", got=str(error),
            todo="install it: pip install 'hil[discovery]', or leave announce out",
        ) from error  # fmt: skip
    try:
        responder = Zeroconf(interfaces=["127.0.0.1"])
    except OSError as error:
        raise _unheard(str(error)) from error
    try:
        for name, box in boxes.items():
            facts = _facts(box)
            for kind, host, port in _services(resources[name]):
                label = f"{facts['Manufacturer']} {facts['Model']} {facts['SerialNumber']} ({name})"
                label = label.replace(".", " ").encode()[:NAME_BYTES].decode(errors="ignore")
                server = f"{re.sub('[^a-z0-9-]', '-', name.lower())}.local."
                info = ServiceInfo(kind, f"{label}.{kind}", port, properties={"txtvers": "1", **facts}, server=server,
                                   addresses=[socket.inet_aton(host)])  # fmt: skip
                responder.register_service(info, allow_name_change=True, cooperating_responders=True)
        yield
    except (Error, NonUniqueNameException) as error:
        raise _unheard(f"{type(error).__name__}: {error}") from error
    finally:
        responder.close()


def _unheard(got: str) -> ConfigError:
    return ConfigError(
        "this computer cannot announce by mDNS", where="virtual bench: announce", got=got, allowed="multicast on 127.0.0.1",
        todo="leave announce out, and open the addresses that are shown",
    )  # fmt: skip


def _facts(box: Box) -> dict[str, str]:
    said = (box.execute(b"*IDN?") or b"").decode("latin-1").split(",")
    return dict(zip(FACTS, [*(part.strip() for part in said), *[""] * len(FACTS)], strict=False))


def _services(resources: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """(service, host, port) of each resource, once."""
    for resource in dict.fromkeys(resources):
        for kind, pattern in SERVICES.items():
            if found := pattern.fullmatch(resource):
                yield kind, found[1], int(found[2] or PORT_MAPPER)
