"""Qontrol Q8iv: a heater driver of eight voltages on a serial line, several modules in a daisy chain.

    id?  ->  Q8iv-0123        firmware?  nchan?        vfull?  ->  +12.000 V
    V3=4.5  ->  OK            VVEC0=1,2,3  ->  OK      the channels from 0 on, in one line
    V3?  ->  +4.4987 V        VALL?  ->  one line for each channel; what is measured, not what was set
    IMAX3=10  ->  OK          mA; VMAX3 in V: limits that the module keeps by itself
    E02:03                    unasked: 1 over-voltage, 2 over-current, whose channel goes to 0 V; 90 power came on

A line that begins with E is never an answer; it is kept until errors() and *ESR? are asked for. There is no relay: off is 0 V.
SCPI's words that the rest of this project asks for are answered here: *RST sets all channels to 0 V, *ESR? tells of E90.

Source: Qontrol's own client, qontrol 1.1.20 on the package index (words, errors, regular expressions of the answers, 115200
baud, 12 V and 24 mA of a Q8iv); it works the simulated box (tests/interop). From elsewhere: nothing. Not used: frames of 7
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from drivers.links.link import Link
from drivers.links.serial_link import SerialLink
from drivers.read_back import ERRORS
from drivers.safe import SafeState, Talk
from drivers.scpi import POWER_ON, Expect, Identity, Scpi, asks, message_of
from drivers.scpi_apart import OneByOne
from drivers.scpi_source import Layout, Level, ScpiSource, per_channel, resting
from drivers.scpi_talk import ANSWER_S, ScpiTalk
from hil.device import Port
from hil.errors import CommandRefused, ConfigError, Desync
from hil.port import Limit

OVER_SERIAL = "drivers.qontrol:over_serial"
BAUD = 115200
HIGHEST_V, HIGHEST_MA = 12.0, 24.0
CHANNELS = 8  # of a module
ACCURACY_V = 0.02  # what is measured differs so much from what was set, at most
ANSWERED = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(?:V|mA)?")
UNASKED = re.compile(r"[A-Za-z]{1,3}(\d+):(\d+)")
OF_CHANNEL = re.compile(r"([A-Z]+?)(\d+)([=?])(.*)")
OUT_OF_RANGE, POWERED_UP = (1, 2), 90
STALE_AT_MOST = 64


class Chain(OneByOne):
    """A conversation with a daisy chain of modules. Arguments as of Scpi."""

    def __init__(self, link: Link, *, expect: Expect | None = None) -> None:
        super().__init__(link, expect=expect)
        self.channels = CHANNELS
        self._unasked: list[tuple[int, str]] = []

    def identify(self) -> Identity:
        """Ask the first module who it is, and the chain how many channels it has. Raises: as Scpi.identify."""
        with self._link.reidentifying():
            who, firmware = self._line("id?"), self._line("firmware?")
            model, dash, serial = who.partition("-")
            try:
                if not dash:
                    raise ValueError
                self.channels = int(self._line("nchan?"))
            except ValueError as error:
                self._link.distrust("this is not a heater driver")
                raise Desync("this is not a heater driver", where=self._link.name, got=who[:80], allowed="Q8iv-0123",
                             outputs="unchanged") from error  # fmt: skip
            identity = Identity("Qontrol", model, serial, firmware)
            self._check_identity(identity)
        self._identity = identity
        return identity

    def send(self, *commands: str) -> None:
        """Send commands, each of them confirmed. Raises: CommandRefused: one was not."""
        self._only_commands(commands)
        with self._link.transaction():
            self._said(";".join(commands))

    def errors(self) -> tuple[str, ...]:
        """Return what the chain said unasked, oldest first, but for the news that its power came on."""
        found, self._unasked = self._unasked, [one for one in self._unasked if one[0] == POWERED_UP]
        return tuple(line for code, line in found if code != POWERED_UP)

    def _said(self, text: str) -> list[str]:
        """Say each part; neighbours that set or ask the same of channels in a row go as one line."""
        parts = [part.strip().lstrip(":") for part in text.split(";") if part.strip()]
        answers: list[str] = []
        for (kind, _), run in groupby(enumerate(parts), lambda one: self._kind(one[1], one[0])):
            group = [part for _, part in run]
            if kind == "":
                answers += [answer for part in group if (answer := self._common(part)) is not None]
            else:
                answers += self._of_channels(kind, group)
        return answers

    def _kind(self, part: str, place: int) -> tuple[str, int]:
        """Word and sign of a part, and which run of channels it belongs to; "" for all others."""
        found = OF_CHANNEL.fullmatch(part)
        return ("", 0) if found is None else (found[1] + found[3], int(found[2]) - place)

    def _of_channels(self, kind: str, parts: Sequence[str]) -> list[str]:
        word, sign = kind[:-1], kind[-1]
        found = [OF_CHANNEL.fullmatch(part) for part in parts]
        first, values = int(found[0][2]), [one[4] for one in found if one]  # type: ignore[index]
        if sign == "=":
            one = f"{word}{first}={values[0]}" if len(values) == 1 else f"{word}VEC{first}={','.join(values)}"
            answer = self._line(one)
            if answer != "OK":
                raise self._nonsense(one, answer, "OK")
            return []
        if len(parts) == 1:
            return [self._number(parts[0], self._line(parts[0]))]
        lines = [self._number(f"{word}ALL?", self._line(f"{word}ALL?" if k == 0 else "")) for k in range(self.channels)]
        return lines[first : first + len(parts)]

    def _number(self, asked: str, line: str) -> str:
        found = ANSWERED.fullmatch(line)
        if found is None:
            raise self._nonsense(asked, line, "a number of V or mA")
        return found[1]

    def _common(self, part: str) -> str | None:
        """A word of SCPI: done with what the chain has."""
        if part == "*RST":
            self._of_channels("V=", [f"V{k}=0" for k in range(self.channels)])
        elif part == "*CLS":
            self._unasked = [one for one in self._unasked if one[0] == POWERED_UP]
        elif part == "*OPC?":
            return "1"
        elif part == "*ESR?":
            return str(self._events())
        elif asks(part):
            return self._line(part)
        else:
            raise CommandRefused("a heater driver has no such word", where=self._link.name, got=part[:80], outputs="unchanged")
        return None

    def _events(self) -> int:
        """The bits of *ESR? that what was said unasked amounts to."""
        codes = [code for code, _ in self._unasked]
        self._unasked = []
        return POWER_ON * (POWERED_UP in codes) | (ERRORS & 8) * any(code != POWERED_UP for code in codes)

    def _line(self, text: str) -> str:
        """Write a line unless it is "", and return the next one that was asked for."""
        if text:
            self._link.write(message_of(text))
        for _ in range(STALE_AT_MOST):
            line = self._link.read_text().strip()
            found = UNASKED.fullmatch(line)
            if found is None:
                return line
            self._unasked.append((int(found[1]), line))
            if text and int(found[1]) not in (*OUT_OF_RANGE, POWERED_UP):
                raise CommandRefused(
                    "the heater driver refused a line", where=self._link.name, got=f"{line} to {text[:40]}",
                    outputs="as far as lines were confirmed; read them back", todo="see its errors in Qontrol's manual",
                )  # fmt: skip
        raise self._nonsense(text, "errors without end", "an answer")


class Qontrol(ScpiSource):
    """The heater driver. It can hold voltage_0, …; off is 0 V, since it has no relay.

    Args:
        scpi: an open conversation with the instrument, or a Link of a serial port.
        channels: those that are used, from 0; the others stay at 0 V.
        low_v, high_v: narrower limits of the levels, V; a list: of each channel.
        limit_a: largest current of each channel, A, which the module keeps by itself.
        slew_v_per_s: largest rate of a level, V/s, and of its way down; None: any.
        max_step_v: largest step of a level, V; None: any.

    Raises:
        OutOfRange, ConfigError: limits wider than the instrument's, or no such channel. WrongInstrument.
    """

    speaks, baud = Chain, BAUD  # what a bench opens it with

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channels: tuple[int, ...] = tuple(range(CHANNELS)),
        low_v: float | tuple[float, ...] = 0.0,
        high_v: float | tuple[float, ...] = HIGHEST_V,
        limit_a: float = 20e-3,
        slew_v_per_s: float | tuple[float, ...] | None = None,
        max_step_v: float | tuple[float, ...] | None = None,
    ) -> None:
        self.channels = tuple(channels)
        chain = scpi if isinstance(scpi, Chain) else Chain(scpi.link if isinstance(scpi, Scpi) else scpi)
        super().__init__(chain, lambda: _layout(self.channels, low_v, high_v, limit_a, slew_v_per_s, max_step_v))

    def _met(self) -> None:
        there = self._scpi.channels if isinstance(self._scpi, Chain) else CHANNELS
        if max(self.channels) >= there:
            raise ConfigError(
                "the chain has no such channel", where=self._called, got=f"channel {max(self.channels)}",
                allowed=f"0 to {there - 1}", outputs="unchanged; nothing was sent",
                todo="correct channels, or look at its cables",
            )  # fmt: skip


def _layout(
    channels: tuple[int, ...], low_v: float | Sequence[float], high_v: float | Sequence[float], limit_a: float,
    slew_v_per_s: Limit | None, max_step_v: Limit | None,
) -> Layout:  # fmt: skip
    if not channels or len(set(channels)) != len(channels) or min(channels) < 0:
        raise ConfigError(
            "the heater driver has no such channels", where="heaters", got=f"channels = {list(channels)}",
            allowed="0 and up, each once", outputs="unchanged; nothing was sent",
        )  # fmt: skip
    count = len(channels)
    low, high = per_channel("low_v", low_v, count), per_channel("high_v", high_v, count)
    milliamps = Port("heater limit", 0.0, HIGHEST_MA, "mA").narrowed(0.0, 1e3 * limit_a).shared_high
    levels = {}
    for k, lowest, highest in zip(channels, low, high, strict=True):
        volts = Port(f"heater {k}", 0.0, HIGHEST_V, "V").narrowed(lowest, highest)
        levels[f"voltage_{k}"] = Level(volts, f"V{k}={{}}", f"V{k}?", f"V{k}?", ACCURACY_V)
    setup = (
        *(f"V{k}={resting(level.port)[0]:.9g}" for k, level in zip(channels, levels.values(), strict=True)),
        *(f"VMAX{k}={highest:.9g}" for k, highest in zip(channels, high, strict=True)),
        *(f"IMAX{k}={milliamps:.9g}" for k in channels),
    )
    drive = Port("heaters", low, high, "V", count, slew_per_s=slew_v_per_s, max_step=max_step_v)
    return Layout(
        "heaters", Expect("Qontrol", "Q8"), levels, tuple(levels), drive, "", "", count, setup, talk=OVER_SERIAL
    )  # fmt: skip


@contextmanager
def over_serial(state: SafeState) -> Iterator[Talk]:
    """Open the port of `state` anew, and a conversation with the chain that is expected there.

    Raises:
        OpenFailed, LinkError: nobody answers. WrongInstrument: another one does.
    """
    link = SerialLink(state.resource, baud=BAUD, timeout_s=ANSWER_S, terminator=b"\n")
    try:
        chain = Chain(link, expect=state.expect)
        chain.identify()
        yield ScpiTalk(chain)
    finally:
        link.close()
