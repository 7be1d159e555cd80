"""Simulated Qontrol Q8iv heater driver, one module or a daisy chain of them, on a serial line: bytes in, bytes out.

    line      V3=4.5 -> OK     V3? -> +4.4999 V     VALL? -> a line for each channel     VVEC0=1,2,3 -> OK     id? -> Q8iv-0001
    frame     7 bytes, the first with bit 7 set:    header, command, address (3), value (2)        answers as those of lines
              header: 1, broadcast, all channels, address mode, read, act, data extension, parity of all of them
    unasked   E02:03     more than IMAX flows on channel 3, which goes to 0 V       E01: above VMAX       E90: power came on

    current = V / load;  V is rounded to 1/65535 of 12 V

Settings, VMAX and IMAX too, are lost at power-on. Between two exchanges nothing is said unasked: it waits for the next one, so
that a client reads it before its answer.

Source: qontrol 1.1.20, Qontrol's own client (words, frames, errors, answers). Not simulated: the noise of its converters, PWM,
noise shaping, trimming, the log; the limits VMAX, IMAX have the ranges of V and I.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

from sim_devices.instruments.box import Message
from sim_devices.instruments.hand import FrontPanel
from sim_devices.instruments.parameters import Flag, Number, Parameter
from sim_devices.instruments.source_box import OUTPUT, SourceBox
from sim_devices.instruments.status import Status

FULL_V, FULL_MA, STEPS = 12.0, 24.0, 65535
CHANNELS = 8
CODES = {0x00: "V", 0x01: "I", 0x02: "VMAX", 0x03: "IMAX", 0x20: "VFULL", 0x21: "IFULL", 0x22: "NCHAN", 0x23: "FIRMWARE",
         0x24: "ID", 0x25: "LIFETIME", 0x32: "NUP"}  # fmt: skip
WORD = re.compile(r"([A-Z]+?)(VEC|ALL)?(\d*)([=?])(.*)")
NAMES = {"V": "volts", "VMAX": "volts_most", "IMAX": "milliamps_most"}
UNITS = {"V": "V", "I": "mA", "VMAX": "V", "IMAX": "mA"}
OVER_VOLTAGE, OVER_CURRENT, UNKNOWN, NOT_A_VALUE, NO_CHANNEL, NOT_ALLOWED, POWERED_UP = 1, 2, 10, 11, 12, 13, 90
LONGEST = 4096
FRAME = 7


class _Refused(Exception):
    """A line that is answered with an error: code and channel."""


class Qontrol(SourceBox):
    """A simulated heater driver.

    Args:
        serial: serial number of the first module; the others count on from it.
        modules: in the daisy chain.
        load_ohm: of the heater at each channel.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "0001", *, modules: int = 1, load_ohm: float = 1e3, lock: threading.Condition | None = None
    ) -> None:
        self._ohm, self._held = load_ohm, b""
        self._serials = [f"{int(serial, 16) + k:04X}" for k in range(modules)]
        self._unasked: list[str] = []
        outputs = {n: _parameters() for n in range(modules * CHANNELS)}
        super().__init__(("Qontrol", "Q8iv", serial, "2.0.4"), outputs, "volts", lock)
        self.status = Status()
        self._front = FrontPanel(self, self.name)

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the host; return the bytes of the answers."""
        with self._lock:
            self._held += bytes(data)
            answers = b"".join(self._said(part) for part in self._parts())
            if len(self._held) > LONGEST:
                self._held = b""
                answers += b"E14:00\n"
            return answers

    def execute(self, message: Message) -> bytes | None:
        """Run one line, as another program on the same line would; see Box.execute."""
        with self._lock:
            return self._said(bytes(message)).removesuffix(b"\n")

    def _parts(self) -> Iterator[bytes]:
        """Cut whole lines and frames off what was held."""
        while self._held:
            if self._held[0] & 0x80:
                size = FRAME if not self._held[0] & 0x02 else 7 + 2 * int.from_bytes(self._held[5:7], "big")
                if len(self._held) < size:
                    return
                part, self._held = self._held[:size], self._held[size:]
            else:
                part, newline, rest = self._held.partition(b"\n")
                if not newline:
                    return
                self._held = rest
            yield part

    def _said(self, part: bytes) -> bytes:
        """The answer to one line or frame, behind what is said unasked."""
        try:
            text = self._line_of(part) if part[:1] and part[0] & 0x80 else part.decode("ascii", "replace")
            answer = self._answer(text.strip())
        except _Refused as refusal:
            answer = ["E{:02d}:{:02d}".format(*refusal.args)]
        told, self._unasked = self._unasked, []
        return "".join(line + "\n" for line in [*told, *answer]).encode()

    def _line_of(self, frame: bytes) -> str:
        """A frame, written as a line. Raises: _Refused: its parity is odd, or no such command."""
        header, code = frame[0], frame[1]
        if header.bit_count() % 2 or code not in CODES:
            raise _Refused(15 if header.bit_count() % 2 else UNKNOWN, 0)
        word, channel = CODES[code], int.from_bytes(frame[3:5], "big")
        if header & 0x08:
            return f"{word}ALL?" if header & 0x20 else f"{word}{channel if word in UNITS else ''}?"
        full = FULL_V if word in ("V", "VMAX") else FULL_MA
        data = frame[7:] if header & 0x02 else frame[5:7]
        values = [int.from_bytes(data[k : k + 2], "big") / STEPS * full for k in range(0, len(data), 2)]
        return f"{word}{'VEC' if header & 0x02 else ''}{channel}=" + ",".join(f"{value:.6f}" for value in values)

    def _answer(self, text: str) -> list[str]:
        """The lines of an answer. Raises: _Refused."""
        found = WORD.fullmatch(text.upper())
        if found is None:
            raise _Refused(UNKNOWN, 0)
        word, many, digits, sign, rest = found.groups()
        if sign == "=" and word == "NUP":
            return ["OK"]
        if sign == "?" and word not in UNITS:
            return self._told(word, many or "")
        first = int(digits or 0)
        if word not in UNITS or (not digits and many != "ALL"):
            raise _Refused(UNKNOWN, 0)
        if sign == "=":
            self._put(word, first, rest, many == "ALL")
            return ["OK"]
        return [self._shown(word, n) for n in (self._channels if many == "ALL" else [first])]

    def _told(self, word: str, many: str) -> list[str]:
        who = f"Q8iv-{self._serials[0]}"
        known = {
            "ID": [who], "FIRMWARE": [f"Q8iv {self._identity[3]}"], "NCHAN": [str(len(self._channels))],
            "VFULL": [f"+{FULL_V:.3f} V"], "IFULL": [f"+{FULL_MA:.3f} mA"], "LIFETIME": ["1000"],
            "NUP": [f"Q8iv-{serial}:{k}" for k, serial in enumerate(self._serials)],
        }  # fmt: skip
        if word not in known:
            raise _Refused(UNKNOWN, 0)
        return known[word] if many or word != "NUP" else known[word][:1]

    def _put(self, word: str, first: int, rest: str, everywhere: bool) -> None:
        try:
            values = [float(value) for value in rest.split(",")]
        except ValueError:
            raise _Refused(NOT_A_VALUE, first) from None
        numbers = list(self._channels) if everywhere else list(range(first, first + len(values)))
        values = values * len(numbers) if everywhere and len(values) == 1 else values
        full = FULL_V if word in ("V", "VMAX") else FULL_MA
        if word == "I":
            raise _Refused(NOT_ALLOWED, first)  # this model is driven by voltage
        if not set(numbers) <= set(self._channels) or len(values) != len(numbers):
            raise _Refused(NO_CHANNEL, first)
        if not all(0 <= value <= full for value in values):
            raise _Refused(NOT_A_VALUE, first)
        for n, value in zip(numbers, values, strict=True):
            self._channels[n].change(**{NAMES[word]: round(value / full * STEPS) / STEPS * full})
            self._kept(n)

    def _kept(self, n: int) -> None:
        """Keep the limits of a channel: what breaks them goes to 0 V and is told."""
        s = self._channels[n]
        volts = s.number("volts")
        if volts > s.number("volts_most") + FULL_V / STEPS:
            self._trip(n, OVER_VOLTAGE)
        elif 1e3 * volts / self._ohm > s.number("milliamps_most") + FULL_MA / STEPS:
            self._trip(n, OVER_CURRENT)
        else:
            s.change(**{OUTPUT: volts > 0})

    def _trip(self, n: int, code: int) -> None:
        self._channels[n].change(**{"volts": 0.0, OUTPUT: False})
        self._unasked.append(f"E{code:02d}:{n:02d}")

    def _shown(self, word: str, n: int) -> str:
        if n not in self._channels:
            raise _Refused(NO_CHANNEL, n)
        s = self._channels[n]
        value = 1e3 * s.number("volts") / self._ohm if word == "I" else s.number(NAMES[word])
        return f"{value:+.4f} {UNITS[word]}"

    def reboot(self) -> None:
        """Lose power for a moment: all settings are lost, and it says so."""
        with self._lock:
            super().reboot()
            self._held, self._unasked = b"", [f"E{POWERED_UP}:00"]


def _parameters() -> dict[str, Parameter]:
    return {
        "volts": Number(0, FULL_V, 0, "V"), "volts_most": Number(0, FULL_V, FULL_V, "V"),
        "milliamps_most": Number(0, FULL_MA, FULL_MA), OUTPUT: Flag(),
    }  # fmt: skip
