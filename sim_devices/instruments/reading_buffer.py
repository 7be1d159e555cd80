"""Common parts of simulated Keithleys with a touch screen: reading buffers, the language, the words around them.

    :READ? "defbuffer1",READ,SOURSTAT        measures, keeps it, answers the elements       :FETCh? ...   the last one again
    :TRACe:DATA? 1,3,"defbuffer1",READ,SOUR  elements of readings 1 to 3                    :TRACe:ACTual?, CLEar, MAKE, DELete
    *LANG TSP                                from the next power-on it speaks another language: no word but *LANG? is known

Source: Model 2450 Reference Manual, 2450-901-01 Rev. B, 6-107 to 6-117, 8-29 (state of the source); DMM6500 Reference Manual,
DMM6500-901-01, the same subsystems. Not simulated: buffer styles, fill modes, files, timestamps of a real clock.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sim_devices.instruments.box import Message
from sim_devices.instruments.hand import PanelBox
from sim_devices.instruments.parameters import number, short_or_long
from sim_devices.instruments.program_message import Quoted, ScpiError, Token
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting

STYLE = ".6E"
OVERFLOW = 9.9e37
DEFAULT = "defbuffer1"
FOREVER = ("defbuffer1", "defbuffer2")
LARGEST = 100_000


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading: what was measured, what was sourced, the bits of the source, when, s."""

    value: float
    source: float = 0.0
    state: int = 0
    at_s: float = 0.0


class Buffers:
    """The reading buffers of a box.

    Args:
        measure: makes one reading.
        unit: of what is measured now.
    """

    def __init__(self, measure: Callable[[], Reading], unit: Callable[[], str] = lambda: "A") -> None:
        self._measure, self._unit = measure, unit
        self.of: dict[str, list[Reading]] = {}
        self._size: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all readings, and all buffers that somebody made."""
        self.of = {name: [] for name in FOREVER}
        self._size = dict.fromkeys(FOREVER, LARGEST)

    def keep(self, one: Reading, name: str = DEFAULT) -> Reading:
        """Append a reading; the oldest makes room."""
        kept = self.of[name]
        kept.append(one)
        del kept[: -self._size[name]]
        return one

    def commands(self) -> Iterator[Command]:
        """Return READ?, MEASure?, FETCh? and TRACe."""
        yield Command("READ", get=lambda call: self._answer(call, fresh=True))
        yield Command("MEASure[:CURRent[:DC]]", get=lambda call: self._answer(call, fresh=True))
        yield Command("MEASure:VOLTage[:DC]", get=lambda call: self._answer(call, fresh=True))
        yield Command("FETCh", get=lambda call: self._answer(call, fresh=False))
        yield Command("TRACe:DATA", get=self._data)
        yield Command("TRACe:ACTual", get=lambda call: str(len(self._named(call.tokens[:1]))))
        yield Command("TRACe:CLEar", lambda call: self._named(call.take(0, 1)).clear())
        yield Command("TRACe:POINts", self._put_size, lambda call: str(self._size[self._name(call.tokens[:1])]))
        yield Command("TRACe:TRIGger", lambda call: self._again(call.take(0, 1)))
        yield Command("TRACe:MAKE", self._make)
        yield Command("TRACe:DELete", self._delete)
        for word, of in (
            ("AVERage", statistics.fmean), ("MAXimum", max), ("MINimum", min),
            ("STDDev", lambda v: statistics.stdev(v) if len(v) > 1 else 0.0),
        ):  # fmt: skip
            yield Command(f"TRACe:STATistics:{word}", get=lambda call, of=of: self._statistic(call, of))  # type: ignore[misc]

    def _again(self, tokens: tuple[Token, ...]) -> None:
        self.keep(self._measure(), self._name(tokens))

    def _statistic(self, call: Call, of: Callable[[list[float]], float]) -> str:
        values = [one.value for one in self._named(call.take(0, 1))]
        return format(of(values) if values else OVERFLOW, STYLE)

    def _answer(self, call: Call, fresh: bool) -> str:
        name, elements = self._name(call.tokens[:1]), call.tokens[1:]
        if fresh:
            self.keep(self._measure(), name)
        if not self.of[name]:
            raise ScpiError(-230, "the buffer is empty")
        return self._shown(self.of[name][-1], elements)

    def _data(self, call: Call) -> str:
        first, last, *rest = call.take(2, 17)
        start, stop = (int(number(token, "")) for token in (first, last))
        kept = self._named(tuple(rest[:1]))
        if not 1 <= start <= stop <= len(kept):
            raise ScpiError(-222, f"readings {start} to {stop} of {len(kept)}")
        return ",".join(self._shown(one, tuple(rest[1:])) for one in kept[start - 1 : stop])

    def _shown(self, one: Reading, elements: tuple[Token, ...]) -> str:
        seconds = math.floor(one.at_s)
        words = {
            "READing": format(one.value, STYLE), "SOURce": format(one.source, STYLE), "SOURSTATus": str(one.state),
            "FORMatted": f"{one.value:+.5e} {self._unit()}", "SOURFORMatted": f"{one.source:+.5e} V", "SOURUNIT": "V",
            "UNIT": self._unit(), "STATus": "0", "RELative": format(one.at_s, ".6f"), "SEConds": str(seconds),
            "FRACtional": format(one.at_s - seconds, ".9f"), "TIME": time.strftime("%H:%M:%S", time.gmtime(one.at_s)),
            "DATE": time.strftime("%m/%d/%Y", time.gmtime(one.at_s)),
            "TSTamp": time.strftime("%m/%d/%Y %H:%M:%S", time.gmtime(one.at_s)),
        }  # fmt: skip
        found = []
        for token in elements or ("READ",):
            text = token if isinstance(token, str) else ""
            at = next((said for word, said in words.items() if short_or_long(word, text)), None)
            if at is None:
                raise ScpiError(-224, text[:24])
            found.append(at)
        return ",".join(found)

    def _name(self, tokens: tuple[Token, ...]) -> str:
        if not tokens:
            return DEFAULT
        (token,) = tokens
        name = token.text if isinstance(token, Quoted) else ""
        if name not in self.of:
            raise ScpiError(-224, f"no buffer {name[:24]}")
        return name

    def _named(self, tokens: tuple[Token, ...]) -> list[Reading]:
        return self.of[self._name(tokens)]

    def _put_size(self, call: Call) -> None:
        size, *name = call.take(1, 2)
        self._size[self._name(tuple(name))] = self._sized(size)

    def _make(self, call: Call) -> None:
        token, size, *_ = call.take(2, 3)
        if not isinstance(token, Quoted) or token.text in self.of:
            raise ScpiError(-224, "a buffer needs a name of its own")
        self._size[token.text] = self._sized(size)
        self.of[token.text] = []

    def _delete(self, call: Call) -> None:
        name = self._name(call.take(1, 1))
        if name in FOREVER:
            raise ScpiError(-221, f"{name} stays")
        del self.of[name], self._size[name]

    def _sized(self, token: Token) -> int:
        size = int(number(token, ""))
        if not 10 <= size <= LARGEST:
            raise ScpiError(-222, f"{size}; 10 to {LARGEST}")
        return size


class Language:
    """The language of a box: what was set last counts from the next power-on.

    Args:
        spoken: now.
    """

    def __init__(self, spoken: str = "SCPI") -> None:
        self._spoken = self._next = spoken

    def commands(self) -> Iterator[Command]:
        """Return *LANG."""
        yield Command("*LANG", self._put, lambda call: self._spoken)

    def power_on(self) -> None:
        """Speak what was set last."""
        self._spoken = self._next

    def understands(self, message: Message) -> bool:
        """True if a message is in the language that is spoken, or common to all."""
        text = bytes(message[:6]).upper()
        return self._spoken == "SCPI" or text in (b"*LANG?", b"*LANG ") or text.startswith((b"*IDN?", b"*RST", b"*CLS"))

    def _put(self, call: Call) -> None:
        word = call.word()
        if word not in ("SCPI", "TSP", "SCPI2400", "SCPI2000", "SCPI34401"):
            raise ScpiError(-224, word)
        self._next = word


class TouchBox(PanelBox):
    """A Keithley with a touch screen, with `_language` and `_buffers`: what is understood, and the words around them."""

    _language: Language
    _buffers: Buffers

    def execute(self, message: Message) -> bytes | None:
        """Execute a message of the language that is spoken; see Box.execute."""
        return super().execute(message if self._language.understands(message) else b"no:word:of:this:language")

    def reboot(self) -> None:
        """Lose power for a moment; the language that was set last is spoken after it."""
        self._language.power_on()
        super().reboot()  # type: ignore[misc]

    def _touched(self, of: Callable[[Call], Settings]) -> Iterator[Command]:
        """Yield the commands that all of them have; `of` finds the settings that a command is about."""
        yield from self._buffers.commands()
        yield from self._language.commands()
        yield setting("[SENSe<1>]:COUNt", "count", of)
        yield setting("FORMat[:DATA]", "format", of)
        yield Command("SYSTem:LFRequency", get=lambda call: "50")
        yield Command("SYSTem:CLEar", lambda call: self._scpi.status.clear())
        yield Command("ABORt", lambda call: call.none())

    def _averaged(self, root: str, of: Callable[[Call], Settings]) -> Iterator[Command]:
        """Averages of what stands at `root`, and its automatic zero."""
        yield setting(f"{root}:AVERage[:STATe]", "average", of)
        yield setting(f"{root}:AVERage:COUNt", "averages", of)
        yield setting(f"{root}:AVERage:TCONtrol", "average_mode", of)
        yield setting(f"{root}:AZERo[:STATe]", "azero", of)
