"""The conversation that makes a SCPI instrument safe: command;question in one message, over a VISA wire of its own.

Instruments that take no two in a message have the other two functions; drivers/scpi_apart.py says how they are spoken to.

A new wire holds nothing old, so nobody waits for what another program left half said on its own.
"""

from __future__ import annotations

import codecs
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from drivers.links.visa_link import VisaLink, library
from drivers.safe import SafeState, Talk
from drivers.scpi import Scpi
from drivers.scpi_apart import Crlf, Fields, OneByOne

OVER_VISA = "drivers.scpi_talk:over_visa"
ONE_BY_ONE = "drivers.scpi_talk:one_by_one"
FIELDS = "drivers.scpi_talk:fields"
CRLF = "drivers.scpi_talk:crlf"
OPEN_S = 2.0
ANSWER_S = 2.0
CODECS = ("ascii", "latin-1", "utf-8", "idna")  # Python loads them when they are first asked for


class ScpiTalk:
    """Command and question go as one message: one exchange, and nobody speaks in between."""

    def __init__(self, scpi: Scpi) -> None:
        self._scpi = scpi

    def do(self, command: str, question: str) -> str:
        """Send command and question as one SCPI message; return the answer."""
        return self._scpi.ask(f"{command};{question}" if command else question)


@contextmanager
def over_visa(state: SafeState) -> Iterator[Talk]:
    """Open a new VISA session with the instrument of `state`, which is the one expected.

    Raises:
        OpenFailed, LinkError: nobody answers. WrongInstrument: another one does.
    """
    with _opened(state, Scpi) as talk:
        yield talk


@contextmanager
def one_by_one(state: SafeState) -> Iterator[Talk]:
    """Open a session with an instrument that takes one command a message. Raises: as over_visa."""
    with _opened(state, OneByOne) as talk:
        yield talk


@contextmanager
def fields(state: SafeState) -> Iterator[Talk]:
    """Open a session with an instrument that answers all fields at once. Raises: as over_visa."""
    with _opened(state, Fields) as talk:
        yield talk


@contextmanager
def crlf(state: SafeState) -> Iterator[Talk]:
    """Open a session with an instrument that ends messages with carriage return and newline. Raises: as over_visa."""
    with _opened(state, Crlf) as talk:
        yield talk


@contextmanager
def _opened(state: SafeState, kind: type[Scpi]) -> Iterator[Talk]:
    link = VisaLink(state.resource, timeout_s=ANSWER_S, open_timeout_s=OPEN_S, terminator=kind.terminator)
    try:
        scpi = kind(link, expect=state.expect)
        scpi.identify()
        yield ScpiTalk(scpi)
    finally:
        link.close()


@cache
def prepare() -> None:
    """Load all that a session needs, so that none of it is looked for on a disk when there is no time."""
    with suppress(OSError, ValueError):  # whoever needs it will be told
        library()
    for name in CODECS:
        codecs.lookup(name)
    with suppress(OSError):
        socket.getaddrinfo("localhost", None)  # the system's resolver loads its parts at the first name
