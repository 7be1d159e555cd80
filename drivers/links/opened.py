"""The wire to an instrument that speaks in messages, by its address: a serial port, or what VISA opens."""

from __future__ import annotations

from collections.abc import Callable

from drivers.links.serial_link import SerialLink
from drivers.links.visa_link import VisaLink
from drivers.resource import is_serial

BAUD = 9600
"""Bits per second of instruments with a serial port, unless one says otherwise: what Keithley ships a 2400 with."""


def opened(
    address: str, *, beat: Callable[[], None] | None = None, baud: int | None = None, timeout_s: float | None = None,
    open_timeout_s: float | None = None, terminator: bytes = b"\n",
) -> SerialLink | VisaLink:  # fmt: skip
    """Open the wire.

    Args:
        address: a VISA resource, or a serial port, whose messages end with a newline.
        beat: called whenever the wire is used.
        baud: bits per second of a serial port; None: BAUD.
        timeout_s: longest silence; None: what the link has.
        open_timeout_s: longest wait for a connection; None: what the link has.
        terminator: at the end of a message, on wires that do not mark it themselves.

    Raises:
        OpenFailed: nobody answers, or another program holds it. ConfigError: no such address.
    """
    link: SerialLink | VisaLink
    if is_serial(address):
        link = SerialLink(address, baud=baud or BAUD, terminator=terminator, beat=beat)
    elif open_timeout_s is None:
        link = VisaLink(address, beat=beat, terminator=terminator)
    else:
        link = VisaLink(address, beat=beat, open_timeout_s=open_timeout_s, terminator=terminator)
    if timeout_s is not None:
        link.timeout_s = timeout_s
    return link
