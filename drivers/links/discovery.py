"""Instruments that answer to multicast DNS: what LXI asks of an instrument on a network.

    _hislip._tcp   host, port   ->  TCPIP::host::hislip0[,port]::INSTR     4880 if left out
    _vxi-11._tcp   host, port   ->  TCPIP::host[,port]::inst0::INSTR       111 is the port mapper's
    _scpi-raw._tcp host, port   ->  TCPIP::host::port::SOCKET
    _lxi._tcp      host         ->  its web page; who it is, and no address for commands

The TXT records say Manufacturer, Model, SerialNumber. Discovery takes a fixed time: who has not answered by then is not shown.
PyVISA-py's own is left aside, because it asks for HiSLIP alone and forgets the port (pyvisa_py/tcpip.py, get_services, 0.8.1).

Source: LXI 1.5, 10.3 to 10.7 (services and TXT records); RFC 6762 (mDNS), RFC 6763 (services).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from hil.errors import OpenFailed

SERVICES = ("_hislip._tcp.local.", "_vxi-11._tcp.local.", "_scpi-raw._tcp.local.", "_lxi._tcp.local.")
LISTEN_S = 1.5
ASK_S = 1.0  # for the records of services that came without their addresses, all together
PORT_MAPPER, HISLIP = 111, 4880


@dataclass(frozen=True, slots=True)
class Found:
    """An instrument that announced itself.

    Args:
        resource: VISA resource string, or "" if it announced no service for commands.
        who: maker, model and serial number, as it says.
        host: its address.
    """

    resource: str
    who: str
    host: str


def missing() -> str:
    """Say what to install for discovery by mDNS; "" when it is there."""
    try:
        import zeroconf  # noqa: F401
    except ImportError:
        return "pip install 'hil[discovery]'"
    return ""


def discover(listen_s: float = LISTEN_S, interfaces: Sequence[str] | None = None) -> tuple[Found, ...]:
    """Return the instruments that announce themselves.

    Args:
        listen_s: how long is waited for answers.
        interfaces: addresses of this computer at which is asked; None for all.

    Raises:
        OpenFailed: zeroconf is not installed, or this computer has no multicast.
    """
    if package := missing():
        raise _not_asked("zeroconf is not installed", f"install it: {package}")
    from zeroconf import InterfaceChoice, ServiceBrowser, ServiceStateChange, Zeroconf

    heard: list[tuple[str, str]] = []

    def note(zeroconf: object, service_type: str, name: str, state_change: object) -> None:
        if state_change is ServiceStateChange.Added:
            heard.append((service_type, name))

    try:
        responder = Zeroconf(interfaces=InterfaceChoice.All if interfaces is None else list(interfaces))
    except OSError as error:
        raise _not_asked(str(error), "look at the network of this computer: multicast to 224.0.0.251") from error
    found: list[Found] = []
    with closing(responder):
        browser = ServiceBrowser(responder, list(SERVICES), [note])
        time.sleep(listen_s)
        browser.cancel()
        end_s = time.monotonic() + ASK_S
        for kind, name in tuple(heard):
            info = responder.get_service_info(kind, name, max(0.0, 1000 * (end_s - time.monotonic())))
            for host in info.parsed_scoped_addresses() if info is not None else ():
                found.append(Found(resource_of(kind, host, info.port or 0), _who(info.decoded_properties), host))
    return told(found)


def resource_of(kind: str, host: str, port: int) -> str:
    """Return the VISA resource string of a service, "" for a web page."""
    host = f"[{host}]" if ":" in host else host
    if kind.startswith("_hislip"):
        return f"TCPIP::{host}::hislip0{'' if port == HISLIP else f',{port}'}::INSTR"
    if kind.startswith("_vxi-11"):
        return f"TCPIP::{host}{'' if port == PORT_MAPPER else f',{port}'}::inst0::INSTR"
    return f"TCPIP::{host}::{port}::SOCKET" if kind.startswith("_scpi") else ""


def _who(facts: Mapping[str, str | None]) -> str:
    said = [facts.get(name) or "" for name in ("Manufacturer", "Model", "SerialNumber")]
    return "".join(c for c in ", ".join(part for part in said if part) if c.isprintable())[:120]  # anybody may have said it


def told(found: Sequence[Found]) -> tuple[Found, ...]:
    """Each once, sorted; a web page only where nothing else is known of the host."""
    hosts = {one.host for one in found if one.resource}
    kept = {one for one in found if one.resource or one.host not in hosts}
    return tuple(sorted(kept, key=lambda one: (one.host, one.resource, one.who)))


def _not_asked(got: str, todo: str) -> OpenFailed:
    return OpenFailed(
        "instruments cannot be asked for by mDNS", where="discovery", got=got, outputs="as they were; nothing was sent",
        todo=todo,
    )  # fmt: skip
