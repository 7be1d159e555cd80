"""A conversation in SCPI: identify, ask, send, move blocks, read the error queue.

    question    :SOUR1:VOLT?            -> one reply
    commands    :A 1;:B 2               -> no reply; then *OPC? -> 1 when all of it is done
    errors      :SYST:ERR?              -> code,"text", oldest first; 0 when the queue is empty; -350 when it overflowed
    status      *ESR? bit 7             power was switched on since the last reading

After ';' a command continues the path of the one before it, so every command that is joined gets a leading ':' to start from
the root; common commands (``*X``) have no path. `*OPC?` goes as a message of its own: an instrument that meets a command that
it does not know throws the rest of that message away, and a discarded ``*OPC?`` would look like a dead instrument.

Source: SCPI-1999 volume 1, 6.2.4 (paths), 21.8 (error queue, codes); IEEE 488.2-1992, 10.14 *IDN?, 10.19 *OPC?, 11.5.1 ESR.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from drivers.links.link import Link
from hil.errors import (
    BadBlock,
    CommandRefused,
    ContractError,
    Desync,
    LinkError,
    NotAReading,
    WrongInstrument,
)
from hil.units import finite

SENTINEL = 9.8e37
"""SCPI's not-a-number is 9.91e37 and its infinity 9.9e37; nothing measured is that large."""

NO_RESULT = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE)
WHOLE = re.compile(r"[+-]?[0-9]{1,100}")
ERRORS_READ_AT_MOST = 64
POWER_ON = 1 << 7
OVERFLOW = "-350"


@dataclass(frozen=True, slots=True)
class Identity:
    """The answer to `*IDN?`: maker, model, serial number, firmware."""

    maker: str
    model: str
    serial: str
    firmware: str

    @classmethod
    def parse(cls, reply: str, where: str = "") -> Identity:
        """Parse the reply to *IDN?.

        >>> Identity.parse("Agilent Technologies,33622A,MY52900123,A.02.03").model
        '33622A'

        Raises:
            Desync: fewer than four fields, or an empty maker or model.
        """
        fields = [field.strip() for field in reply.split(",", 3)]
        if len(fields) != 4 or not fields[0] or not fields[1]:
            raise Desync(
                "this is not an identity",
                where=where,
                got=repr(reply[:80]),
                allowed="maker,model,serial,firmware",
                todo="recover() the session; if it comes back, something else answers at this address",
            )
        return cls(*fields)

    def __str__(self) -> str:
        return f"{self.maker} {self.model} {self.serial} {self.firmware}"


@dataclass(frozen=True, slots=True)
class Expect:
    """The instrument that should answer. Empty fields are not checked; case does not matter.

    Args:
        maker, model: beginnings; a tuple allows several (``("AGILENT", "KEYSIGHT")``).
        serial: the whole serial number.
    """

    maker: str | tuple[str, ...] = ""
    model: str | tuple[str, ...] = ""
    serial: str = ""

    def admits(self, identity: Identity) -> bool:
        """True if maker and model begin as expected, and the serial number is the expected one, if one is."""
        return (
            _begins(identity.maker, self.maker)
            and _begins(identity.model, self.model)
            and (not self.serial or identity.serial.casefold() == self.serial.casefold())
        )

    def __str__(self) -> str:
        maker, model = (" or ".join([part] if isinstance(part, str) else part) for part in (self.maker, self.model))
        words = [f"maker {maker}…" if maker else "", f"model {model}…" if model else ""]
        return ", ".join([w for w in words if w] + ([f"serial {self.serial}"] if self.serial else []))


class Scpi:
    """An instrument that speaks SCPI, over one link.

    Args:
        link: the wire; this session is the one that brings it back after a fault.
        expect: who should answer; None accepts anybody at first, and the same serial number from then on.
    """

    terminator: ClassVar[bytes] = b"\n"  # of messages on a wire that marks no end itself

    def __init__(self, link: Link, *, expect: Expect | None = None) -> None:
        self._link, self._expect = link, expect or Expect()
        self._identity: Identity | None = None
        self.power_lost = False  # seen by power_cycled(), or by a Panel, since the instrument was last set up

    @property
    def link(self) -> Link:
        """The link that carries the conversation."""
        return self._link

    @property
    def expect(self) -> Expect:
        """Who should answer."""
        return self._expect

    @property
    def identity(self) -> Identity | None:
        """The answer to the last `identify()`, None before it."""
        return self._identity

    def identify(self) -> Identity:
        """Ask who is there, and make the link clean.

        Raises:
            WrongInstrument: not the one that was expected, or not the one that answered before. The link stays dirty.
            Desync, LinkTimeout, Disconnected, DirtySession: see Link.
        """
        with self._link.reidentifying():
            self._link.write(b"*IDN?")
            reply = self._link.read_text()
            try:
                identity = Identity.parse(reply, self._link.name)
                self._check_identity(identity)
            except (Desync, WrongInstrument) as error:
                self._link.distrust(error.what)
                raise
        self._identity = identity
        return identity

    def _check_identity(self, identity: Identity) -> None:
        before = self._identity
        changed = before is not None and (before.maker, before.model, before.serial) != (
            identity.maker,
            identity.model,
            identity.serial,
        )
        if changed or not self._expect.admits(identity):
            raise WrongInstrument(
                "another instrument than before answers" if changed else "the wrong instrument answers at this address",
                where=self._link.name,
                got=str(identity),
                allowed=str(before) if changed else str(self._expect),
                outputs="unchanged; nothing was set",
                todo="correct the address or the expected instrument in the bench file",
            )

    def ask(self, command: str) -> str:
        """The reply to one question, stripped of white space."""
        with self._link.transaction():
            self._link.write(message_of(command))
            return self._link.read_text().strip()

    def ask_float(self, command: str) -> float:
        """Ask for one finite number.

        Raises:
            NotAReading: NaN, or a number that SCPI reserves for "no result" (9.9E37).
            Desync: not a number.
        """
        reply = self.ask(command)
        try:
            value = reading(reply)
        except ValueError as error:
            raise self._nonsense(command, reply, "a number") from error
        if math.isnan(value) or abs(value) >= SENTINEL:
            raise NotAReading(
                f"{command} has no result",
                where=self._link.name,
                got=reply,
                allowed=f"a number below {SENTINEL:g}",
                outputs="as they were",
                todo="check range, trigger and input; the instrument measured nothing it could express",
            )
        return value

    def ask_int(self, command: str) -> int:
        """A whole number, however the instrument writes it (``+3``, ``3.0E0``)."""
        reply = self.ask(command)
        try:
            return _whole(reply)
        except ValueError as error:
            raise self._nonsense(command, reply, "a whole number") from error

    def ask_bool(self, command: str) -> bool:
        """Ask for a flag: 1 or ON, 0 or OFF.

        Raises:
            Desync: anything else.
        """
        reply = self.ask(command)
        if reply.upper() in {"1", "ON", "+1"}:
            return True
        if reply.upper() in {"0", "OFF", "+0"}:
            return False
        raise self._nonsense(command, reply, "0, 1, OFF or ON")

    def send(self, *commands: str) -> None:
        """Send commands as one message and wait until the instrument has done them all.

        Raises:
            ContractError: a question among the commands (its reply would shift all later ones), or an empty command. Nothing
                was sent.
        """
        self._only_commands(commands)
        message = message_of(";".join(_from_root(command) for command in commands))
        with self._link.transaction():
            if message:
                self._link.write(message)
            self._wait()

    def _only_commands(self, commands: Sequence[str]) -> None:
        """Raises: ContractError: a question among them, or an empty one."""
        for command in commands:
            if not command.strip() or any(asks(part) for part in command.split(";")):
                raise ContractError(
                    "only commands can be sent; a question would leave its reply unread",
                    where=self._link.name,
                    got=repr(command),
                    outputs="unchanged; nothing was sent",
                    todo="use ask() for questions",
                )

    def ask_block(self, command: str, dtype: np.dtype[np.generic] | str, count: int) -> NDArray[Any]:
        """Ask for exactly `count` items of `dtype` (with its byte order, ``"<i2"``), writable, in the byte order of the wire.

        Raises:
            BadBlock: anything else came.
        """
        item = np.dtype(dtype)
        with self._link.transaction():
            self._link.write(message_of(command))
            payload = self._link.read_block(item.itemsize, count * item.itemsize)
        items = np.frombuffer(payload, item)
        if len(items) != count:
            self._link.distrust("a block of the wrong length")
            raise BadBlock(
                f"{command} gave another number of items than were asked for",
                where=self._link.name,
                got=f"{len(items)} of {item.str}",
                allowed=str(count),
                outputs="as they were; a read changes none",
                todo="recover() the session and repeat the whole shot",
            )
        return items

    def errors(self) -> tuple[str, ...]:
        """Empty the error queue, oldest first; at most 64 are read."""
        found: list[str] = []
        with self._link.transaction():
            while len(found) < ERRORS_READ_AT_MOST:
                reply = self.ask(":SYST:ERR?")
                code = reply.split(",", 1)[0]
                try:
                    number = _whole(code)
                except ValueError as error:
                    raise self._nonsense(":SYST:ERR?", reply, 'code,"text"') from error
                if number == 0:
                    break
                found.append(reply)
        return tuple(found)

    def check(self, doing: str, outputs: str = "") -> None:
        """Raise if the instrument has complained since the last check.

        Args:
            doing: what was being done, for the message.
            outputs: the state of the outputs, where the caller knows it.

        Raises:
            CommandRefused: with the first errors; later ones are usually their consequence.
        """
        found = self.errors()
        if not found:
            return
        lost = len(found) == ERRORS_READ_AT_MOST or any(error.startswith(OVERFLOW) for error in found)
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise CommandRefused(
            f"the instrument refused something while {doing}",
            where=f"{self._identity.model} at {self._link.name}" if self._identity else self._link.name,
            got=shown + ("; the queue overflowed, errors are missing" if lost else ""),
            outputs=outputs or "as far as commands were accepted; read them back",
            todo="treat all settings as unknown and set them again" if lost else "correct the setting that is named",
        )

    def power_cycled(self) -> bool:
        """True once after the instrument was switched on: its settings and volatile memory are gone. Clears the ESR."""
        found = bool(self.ask_int("*ESR?") & POWER_ON)
        self.power_lost = self.power_lost or found
        return found

    def clear(self) -> None:
        """Empty the wire. It is dirty until `identify()`."""
        self._link.clear()

    def reopen(self) -> None:
        """Close the wire and open it again. It is dirty until `identify()`."""
        self._link.reopen()

    def found(self) -> str:
        """Identify after a fault, and see whether the power was lost; return a line for people.

        Raises:
            WrongInstrument, LinkError: as identify().
        """
        who = self.identify()
        self.power_cycled()
        return f"{who.model} {who.serial} answers" + (", and was switched off and on since" if self.power_lost else "")

    def recover(self, attempts: int = 4, pause_s: float = 0.2) -> Identity:
        """Bring a dirty link back: clear, else reopen, with growing pauses; then the same instrument must answer.

        Neither settings nor outputs are touched. Ask `power_cycled()` next, and set the instrument again.

        Raises:
            WrongInstrument: another one answers.
            LinkError: nobody answers in any attempt.
        """
        with self._link.transaction():
            try:
                self._link.clear()
                return self.identify()
            except LinkError as error:
                last = error
            for attempt in range(attempts):
                time.sleep(pause_s * 2**attempt)
                try:
                    self._link.reopen()
                    return self.identify()
                except LinkError as error:
                    last = error
            raise last

    def close(self) -> None:
        """Close the link; what the outputs do is the driver's business, before this."""
        self._link.close()

    def _wait(self) -> None:
        reply = self.ask("*OPC?")
        if reply not in {"1", "+1"}:
            raise self._nonsense("*OPC?", reply, "1")

    def _nonsense(self, command: str, reply: str, allowed: str) -> Desync:
        what = f"the reply to {command} makes no sense"
        self._link.distrust(what)
        return Desync(
            what,
            where=self._link.name,
            got=repr(reply[:80]),
            allowed=allowed,
            outputs="as they were before",
            todo="recover() the session: it may be the answer to an older question",
        )


def spoken(scpi: Scpi | Link, kind: type[Scpi]) -> Scpi:
    """The conversation over a link, or the one given, in the form that an instrument understands, with the same expectation."""
    if not isinstance(scpi, Scpi):
        return kind(scpi)
    return scpi if isinstance(scpi, kind) else kind(scpi.link, expect=scpi.expect)


def asks(part: str) -> bool:
    """True if this part of a message is a question."""
    return part.strip().partition(" ")[0].endswith("?")


def reading(text: str) -> float:
    """The number in a reply; NaN where the instrument says in words that it has none. Raises: ValueError: neither."""
    return math.nan if NO_RESULT.fullmatch(text.strip()) else finite(text)


def _whole(reply: str) -> int:
    """Raises: ValueError: no whole number."""
    if WHOLE.fullmatch(reply.strip()):
        return int(reply)
    value = finite(reply)
    if not value.is_integer():
        raise ValueError("not a whole number")
    return int(value)


def message_of(text: str) -> bytes:
    """Encode a message. Raises: ContractError: more than one line, or not ASCII."""
    if "\n" in text or not text.isascii():
        raise ContractError("a command is one line of ASCII", got=repr(text), outputs="unchanged; nothing was sent")
    return text.encode("ascii")


def _from_root(command: str) -> str:
    return command if command.startswith(("*", ":")) else f":{command}"


def _begins(text: str, beginnings: str | tuple[str, ...]) -> bool:
    options = (beginnings,) if isinstance(beginnings, str) else beginnings
    return text.casefold().startswith(tuple(option.casefold() for option in options))
