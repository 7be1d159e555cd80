"""What is served, told by multicast DNS to the programs of this computer, as an LXI instrument tells its network.

    <maker> <model> <serial> (<box>)._hislip._tcp.local.     SRV: host and port     TXT: txtvers=1 Manufacturer=... Model=...
                                    ._vxi-11._tcp.local.                                 SerialNumber=... FirmwareVersion=...
                                    ._scpi-raw._tcp.local.

The port of _vxi-11 is 111 where a port mapper answers, else that of the core channel. On the loopback interface alone: nobody
else can reach what is served here. _lxi._tcp stands for the web page of an instrument, and a simulated one has none.

Source: LXI 1.5, 10.3 to 10.7 (services and TXT records); RFC 6762 (mDNS), RFC 6763 (services).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

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
        from zeroconf import Error, ServiceInfo, Zeroconf
    except ImportError as error:
        raise ConfigError(
            "announcing needs the package zeroconf", where="virtual bench: announce", got=str(error),
            todo="install it: pip install 'hil[discovery]', or leave announce out",
        ) from error  # fmt: skip
    try:
        responder = Zeroconf(interfaces=["127.0.0.1"])
    except OSError as error:
        raise _unheard(str(error)) from error
    services = [ServiceInfo(**one) for name, box in boxes.items() for one in _services(name, box, resources[name])]
    with closing(responder):
        try:
            with ThreadPoolExecutor(len(services)) as all_at_once:  # each asks for a while whether its name is free
                list(all_at_once.map(lambda one: responder.register_service(one, allow_name_change=True), services))
        except Error as error:
            raise _unheard(f"{type(error).__name__}: {error}") from error
        yield


def _unheard(got: str) -> ConfigError:
    return ConfigError(
        "this computer cannot announce by mDNS", where="virtual bench: announce", got=got, allowed="multicast on 127.0.0.1",
        todo="leave announce out, and open the addresses that are shown",
    )  # fmt: skip


def _services(name: str, box: Box, resources: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What zeroconf has to know of each service of a box."""
    said = [part.strip() for part in (box.execute(b"*IDN?") or b"").decode("latin-1").split(",")]
    facts = dict(zip(FACTS, [*said, *[""] * len(FACTS)], strict=False))
    label = f"{' '.join(said[:3])} ({name})".replace(".", " ").encode()[:NAME_BYTES].decode(errors="ignore")
    server = f"hil-{os.getpid()}-{re.sub('[^a-z0-9-]', '-', name.lower())}.local."  # of its own: its address may be another
    for resource in dict.fromkeys(resources):
        for kind, pattern in SERVICES.items():
            if found := pattern.fullmatch(resource):
                yield {
                    "type_": kind, "name": f"{label}.{kind}", "port": int(found[2] or PORT_MAPPER), "server": server,
                    "addresses": [socket.inet_aton(found[1])], "properties": {"txtvers": "1", **facts},
                }  # fmt: skip
