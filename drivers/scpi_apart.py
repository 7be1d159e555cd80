r"""Conversations with instruments that take one command or question a message, and with those that answer all fields at once.

OneByOne    ":A 1;:B 2"      ->  ":A 1", ":B 2", "*OPC?"           ":A?;:B?"  ->  ":A?", ":B?"; answers joined by ";"

Unregistered    the same; no event registers and no error queue are asked for, since the guide has none

Crlf        as OneByOne, and what marks no end itself ends its messages with \r\n, both ways

Fields      the same, and    "C1:BSWV:AMP 8"  ->  "C1:BSWV AMP,8"          "C1:BSWV:AMP?"  ->  "C1:BSWV?"
            a reply          C1:BSWV WVTP,ARB,FRQ,1000HZ,AMP,8V,...        of which AMP is taken, without its unit: "8"
                             C1:OUTP ON,LOAD,HZ,PLRT,NOR                   "C1:OUTP?" is the first, which has no name

So settings, ramps and safe states are written alike for all instruments. Fields of a carrier (behind CARR) are not asked for.

Source: Siglent SDG Series Programming Guide PG02-E05C, 3.3, 3.4, 3.7 (forms of commands and replies). The instrument documents
neither an error queue nor event registers, clamps what is out of its range and says nothing (3.4: "refer to the datasheet"), so
`errors` has nothing to read, and whoever sets something reads it back. A power cut shows as settings that are not as they were.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from drivers.read_back import NO_ANSWER
from drivers.scpi import Scpi, asks, message_of

NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:HZ|S|V|Vrms|dBm|Sa/s)?", re.IGNORECASE)
FIELD = re.compile(r"(C\d:[A-Z]+):([A-Z_]+)(\?| .*)?")
HIGH_IMPEDANCE, INFINITY = "HZ", "9.9E37"
EVENTS = "*ESR?"


class OneByOne(Scpi):
    """A conversation of one command or question a message. Arguments as of Scpi."""

    def ask(self, command: str) -> str:
        """Send the parts of `command` one after the other; return the answers, joined by ";"."""
        with self._link.transaction():
            return ";".join(self._said(command))

    def send(self, *commands: str) -> None:
        """Send commands one after the other, and wait until the instrument has done them all; see Scpi.send."""
        self._only_commands(commands)
        with self._link.transaction():
            self._said(";".join(commands))
            self._wait()

    def ask_block(self, command: str, dtype: np.dtype[np.generic] | str, count: int) -> NDArray[Any]:
        """Ask for a block with the last part of `command`; see Scpi.ask_block."""
        before, _, question = command.rpartition(";")
        with self._link.transaction():
            self._said(before)
            return super().ask_block(question, dtype, count)

    def _said(self, text: str) -> list[str]:
        """Send each part of `text`; return the answers."""
        parts = [part.strip() for part in text.split(";")]
        return [answer for part in parts if part and (answer := self._one(part)) is not None]

    def _one(self, part: str) -> str | None:
        self._link.write(message_of(part))
        return self._link.read_text().strip() if asks(part) else None


class Crlf(OneByOne):
    """A conversation with an instrument that ends messages with carriage return and newline. Arguments as of Scpi."""

    terminator: ClassVar[bytes] = b"\r\n"


class Unregistered(OneByOne):
    """A conversation with an instrument without event registers and error queue. Arguments as of Scpi."""

    def errors(self) -> tuple[str, ...]:
        """Return (): the instrument has no error queue."""
        return ()

    def _one(self, part: str) -> str | None:
        return "0" if part == EVENTS else super()._one(part)


class Fields(Unregistered):
    """A conversation with an instrument that answers all fields at once. Arguments as of Scpi."""

    def _said(self, text: str) -> list[str]:
        """Ask for each reply once, however many of its fields are wanted."""
        heard: dict[str, dict[str, str]] = {}
        answers = []
        for part in filter(None, (part.strip() for part in text.split(";"))):
            found = FIELD.fullmatch(part)
            header, name, rest = (found[1], found[2], found[3] or "") if found else (part.rstrip("?"), "", part[-1:])
            if not asks(part):
                self._one(f"{header} {name}{',' if rest else ''}{rest.strip()}" if found else part)
                heard.clear()
            elif part.startswith("*"):
                answers.append(self._one(part) or "")
            else:
                if header not in heard:
                    heard[header] = self._fields(header)
                answers.append(heard[header].get(name, NO_ANSWER))
        return answers

    def _fields(self, header: str) -> dict[str, str]:
        """Ask for a reply; its fields by name, the first under "" if it has none. Raises: Desync: another reply."""
        reply = self._one(f"{header}?") or ""
        head, _, body = reply.partition(" ")
        values = [value.strip() for value in body.split(",")]
        own = values[: values.index("CARR")] if "CARR" in values else values
        if head.upper() != header.upper() or not body:
            raise self._nonsense(f"{header}?", reply, f"{header} NAME,VALUE,...")
        first = {"": plain(own.pop(0))} if len(own) % 2 else {}
        return first | {name.upper(): plain(value) for name, value in zip(own[::2], own[1::2], strict=True)}


def plain(value: str) -> str:
    """A value without its unit; a load of high impedance is SCPI's infinity.

    >>> plain("8.4e-09S"), plain("HZ"), plain("NOR")
    ('8.4e-09', '9.9E37', 'NOR')
    """
    number = NUMBER.fullmatch(value)
    return number[1] if number else INFINITY if value == HIGH_IMPEDANCE else value
