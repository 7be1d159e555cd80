"""Resource strings of the VISA standard, in all their spellings.

    TCPIP[board]::host[,port][::device name[,port]][::INSTR]     device name: inst0 if left out; hislip0 for HiSLIP
    TCPIP[board]::host::port::SOCKET                             host: a name, 192.168.1.5, or [fe80::1%eth0]
    USB[board]::maker::model::serial[::interface][::INSTR]       maker, model: decimal or 0x hexadecimal
    GPIB[board]::primary[::secondary][::INSTR]
    ASRL[board][::INSTR]                                         board: the number of a port, or its name, /dev/ttyUSB0

Case does not matter but in names of devices behind a gateway and serial numbers; a board number that is left out is 0; blanks
around the parts are no part of them. "::" inside brackets separates nothing: an IPv6 address stands in them.

Source: VPP-4.3 (VISA) 4.3.1.1, address strings; RFC 3986, 3.2.2 (brackets).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from contextlib import suppress

from hil.errors import ConfigError
from hil.system import serial_name

SEPARATOR = re.compile(r"::(?![^\[]*\])")
HEAD = re.compile(r"(TCPIP|USB|GPIB|VICP|PXI|VXI|PRLGX-TCPIP|PRLGX-ASRL)([0-9]*)", re.IGNORECASE)
SERIAL = re.compile(r"ASRL\s*(.*?)\s*(?:::\s*INSTR\s*)?", re.IGNORECASE | re.DOTALL)
PORT = re.compile(r"/dev/\w+|COM[0-9]+", re.IGNORECASE)
HOST = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
CLASSES = ("INSTR", "SOCKET", "INTFC", "RAW", "SERVANT", "MEMACC", "BACKPLANE")
STANDARD = re.compile(r"(?:inst|hislip)[0-9]*(?:,[0-9]+)?", re.IGNORECASE)
WELL_KNOWN = {"111", "1024", "4880", "5024", "5025"}
"""Ports behind which an instrument itself listens: VXI-11, HiSLIP, SCPI telnet and socket."""


def serial_port(resource: str) -> str:
    """The name that the system has for a serial port: "ASRL/dev/ttyUSB0::INSTR" is "/dev/ttyUSB0"; other names as they are.

    A number is that of a port of the system: ASRL1 is COM1, or /dev/ttyS0.
    """
    text = resource.strip()
    found = SERIAL.fullmatch(text)
    if found is None or not found[1]:
        return text
    if not found[1].isdecimal():
        return found[1]
    return serial_name(int(found[1]))


def is_serial(resource: str) -> bool:
    """A serial port, by its name or as VISA writes it."""
    return SERIAL.fullmatch(resource.strip()) is not None or "::" not in resource


def standard(resource: str, brackets: bool = True) -> str:
    """The spelling that every VISA library reads: capitals, board number, device name and class written out.

    >>> standard("tcpip::192.168.1.5::INST0::instr")
    'TCPIP0::192.168.1.5::inst0::INSTR'

    Args:
        resource: a VISA resource name, in any spelling.
        brackets: around an IPv6 address, as the standard has it; else the address has all of its digits and no "::".

    Raises:
        ConfigError: it is none.
    """
    head, parts = _taken_apart(resource)
    found = HEAD.fullmatch(head)
    if found is None or not parts or not all(parts):
        raise _wrong(resource, "no bus at its beginning" if found is None else "a part is missing")
    bus, board = found[1].upper(), found[2] or "0"
    kind = parts.pop().upper() if parts[-1].upper() in CLASSES else "INSTR"
    if bus == "TCPIP":
        if kind == "INSTR" and len(parts) == 1:
            parts.append("inst0")
        if len(parts) != 2 or (kind == "SOCKET" and not (parts[1].isdecimal() and 0 < int(parts[1]) < 65536)):
            raise _wrong(resource, "a port is due before SOCKET" if kind == "SOCKET" else f"{len(parts)} parts")
        parts = [_host(parts[0], resource, brackets), parts[1].lower() if STANDARD.fullmatch(parts[1]) else parts[1]]
    return "::".join([f"{bus}{board}" if bus != "VICP" else bus, *parts, kind])


def canonical(resource: str) -> str:
    """Return one text for all spellings of an address.

    Names are not resolved: an instrument that is addressed by name here and by number there has two locks.

    >>> canonical("tcpip0::Scope.Lab::hislip0::INSTR") == canonical("TCPIP::scope.lab::5025::SOCKET")
    True
    >>> canonical("TCPIP::127.0.0.1::hislip0,40001::INSTR")
    'tcpip/127.0.0.1/40001'
    """
    if is_serial(resource):
        port = serial_port(resource)
        return f"serial/{os.path.realpath(port) if port.startswith('/') else port.upper()}"
    kind, parts = _taken_apart(resource)
    parts = [part for part in parts if part]
    bus, number = re.sub(r"\d+$", "", kind).upper(), kind[len(kind.rstrip("0123456789")) :] or "0"
    if bus == "TCPIP" and parts:
        return _network(parts)
    if bus == "USB" and len(parts) >= 3:
        with suppress(ValueError):
            return f"usb/{int(parts[0], 0):04x}/{int(parts[1], 0):04x}/{parts[2].upper()}"
    if bus == "GPIB":
        number, parts = str(int(number)), [str(int(part)) if part.isdecimal() else part for part in parts]
    return "/".join([f"{bus.lower()}{number}", *(part.upper() for part in parts if part.upper() != "INSTR")])


def _taken_apart(resource: str) -> tuple[str, list[str]]:
    head, *parts = [part.strip() for part in SEPARATOR.split(resource.strip())]
    return head, parts


def _host(text: str, resource: str, brackets: bool) -> str:
    """Raises: ConfigError: an IPv6 address that is none."""
    if not set(text) & set("[:"):
        return text
    inside, _, after = text.removeprefix("[").partition("]")
    try:
        address = ipaddress.IPv6Address(inside)
    except ValueError as error:
        raise _wrong(resource, str(error)) from error
    return f"[{address}]{after}" if brackets else f"{address.exploded}{after}"


def _network(parts: Sequence[str]) -> str:
    """Host, and the port unless it is one of the instrument itself; a gateway's further names stay apart."""
    text, _, port = parts[0].partition(",")
    host = text.lower().rstrip(".")
    host = "127.0.0.1" if host == "localhost" else host
    with suppress(ValueError):
        address = ipaddress.ip_address(host.strip("[]"))
        host = str(getattr(address, "ipv4_mapped", None) or address)
    device = ""
    if len(parts) > 1 and parts[-1].upper() == "SOCKET":
        port = parts[1]
    elif len(parts) > 1 and parts[1].upper() != "INSTR":
        name, _, after = parts[1].lower().partition(",")
        known = re.fullmatch(r"(inst|hislip)0?", name) is not None
        device, port = ("", after or port) if known else (parts[1].lower(), port)
    return "/".join(["tcpip", host, *([device] if device else []), *([port] if port and port not in WELL_KNOWN else [])])


def _wrong(resource: str, got: str) -> ConfigError:
    bare = "[" not in resource and re.search("(:[0-9a-f]{1,4}){2}:", resource.replace("::", ":"), re.IGNORECASE)
    if bare:
        todo = "write an IPv6 address in brackets: TCPIP::[fe80::1]::hislip0::INSTR"
    elif PORT.fullmatch(resource.strip()):
        todo = "this is a serial port, and the driver wants a VISA resource; hil list resources shows those that answer"
    elif HOST.fullmatch(resource.strip()):
        todo = f'write "TCPIP::{resource.strip()}::INSTR"'
    else:
        todo = "correct it; hil list resources shows those that answer"
    return ConfigError(
        "this is not a VISA resource string", where=resource[:200], got=got,
        allowed="TCPIP::host::hislip0::INSTR, TCPIP::host::5025::SOCKET, USB::…::INSTR, GPIB::5::INSTR",
        outputs="unchanged; nothing was opened", todo=todo,
    )  # fmt: skip
