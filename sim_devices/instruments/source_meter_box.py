"""Common parts of simulated source-meters: what is set, what flows, what the compliance and the range do to it.

    sourcing V    A = clamp( what flows at V, -compliance, compliance )         trip: it was clamped
    sourcing A    V = clamp( A * load, -compliance, compliance )
    answer        9.91E37 (the model says which) where the measured A is beyond 105 % of a range that was chosen

What is connected to a channel is a resistor, unless a plant says what current flows. A model adds its own words for compliance,
lists, buffers and formats.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter, numbers
from sim_devices.instruments.probe import Answers, Probe
from sim_devices.instruments.program_message import Quoted, ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting
from sim_devices.instruments.source_box import OUTPUT, SourceBox

STYLE = "+.6E"
MARGIN = 1.05  # of a range that is still measured, and still sourced
QUANTITIES = (("VOLTage", "volts"), ("CURRent", "amps"))
LONG = {"VOLTAGE": "VOLT", "CURRENT": "CURR", "RESISTANCE": "RES", "STATUS": "STAT", "SOURCE": "SOUR"}


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement: V and A at the terminals, held back at the compliance, beyond the range."""

    volts: float
    amps: float
    tripped: bool
    beyond: bool


class SourceMeterBox(Probe, SourceBox):
    """A simulated source-meter.

    Args:
        identity: the four fields of ``*IDN?``.
        channels: how many it has.
        parameters: of each, see `meter_parameters`.
        load_ohm: of the resistor at the terminals.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, identity: tuple[str, str, str, str], channels: int, parameters: Callable[[], Mapping[str, Parameter]],
        load_ohm: float, lock: threading.Condition | None,
    ) -> None:  # fmt: skip
        def flows(volts: float) -> float:
            return volts / load_ohm

        inputs: dict[int, Answers] = dict.fromkeys(range(1, channels + 1), flows)
        Probe.__init__(self, inputs)
        self._ohm, self._count = load_ohm, channels
        SourceBox.__init__(self, identity, {n: parameters() for n in inputs}, "volts", lock)

    def _of(self, call: Call) -> Settings:
        """The channel of a command whose pattern ends in a suffix, or 1."""
        return self._channels[call.channel if call.suffixes else 1]

    def _shared(self, n: str, root: str, sense: str) -> Iterator[Command]:
        """What all of them say alike.

        Args:
            n: the suffix of a channel, "<1>".
            root: how its source is named, "SOURce<1>".
            sense: how its meter is named, "[SENSe<1>]".
        """
        yield setting(f"OUTPut{n}[:STATe]", OUTPUT, self._of)
        yield setting(f"{root}:FUNCtion[:MODE]", "function", self._of)
        for word, level in QUANTITIES:
            yield Command(
                f"{root}:{word}[:LEVel][:IMMediate][:AMPLitude]", self._put(level),
                lambda c, name=level: self._of(c).shown(name, c),  # type: ignore[misc]
            )  # fmt: skip
            yield setting(f"{root}:{word}:RANGe", f"{level}_range", self._of)
            yield setting(f"{root}:{word}:RANGe:AUTO", f"{level}_range_auto", self._of)
            yield setting(f"{sense}:{word}[:DC]:RANGe[:UPPer]", f"sense_{level}_range", self._of, self._fixed(level))
            yield setting(f"{sense}:{word}[:DC]:RANGe:AUTO", f"sense_{level}_range_auto", self._of)
            yield setting(f"{sense}:{word}[:DC]:NPLCycles", "nplc", self._of)

    def _fixed(self, level: str) -> Callable[[Call], None]:
        return lambda call: self._of(call).change(**{f"sense_{level}_range_auto": False})

    def _put(self, level: str) -> Callable[[Call], None]:
        def put(call: Call) -> None:
            s = self._of(call)
            if s.text(f"{level}_mode") != "FIX":
                raise ScpiError(-221, "not in the list mode")
            value = float(s.read(level, call.only()))
            span = s.number(f"{level}_range")
            if not s.flag(f"{level}_range_auto") and abs(value) > MARGIN * span:
                raise ScpiError(-222, f"beyond the range of {span:g}")
            s.change(**{level: value})

        return put

    def _measured(self, n: int = 1) -> Measured:
        """Measure channel n as it is set."""
        s = self._channels[n]
        if not s.flag(OUTPUT):
            raise ScpiError(-221, "the output is off")
        if self.timing is not None:
            self._operations.pause(self.timing.acquire_s * s.number("nplc"))
        if s.text("function") == "CURR":
            wanted, limit = s.number("amps") * self._ohm, abs(s.number("compliance_v"))
            volts, amps = min(max(wanted, -limit), limit), s.number("amps")
            tripped = volts != wanted
        else:
            volts, limit = s.number("volts"), abs(s.number("compliance_a"))
            wanted = self._inputs[n](volts)
            amps = min(max(wanted, -limit), limit)
            tripped = amps != wanted
        beyond = not s.flag("sense_amps_range_auto") and abs(amps) > MARGIN * s.number("sense_amps_range")
        return Measured(volts, amps, tripped, beyond)

    def _levels_of(self, call: Call, most: int, n: int = 1) -> list[float]:
        """The levels that a command for a list brings, V. Raises: ScpiError: too many, or one that channel n does not have."""
        levels = [float(v) for v in numbers(call.take(1, most))]
        for level in levels:
            self._channels[n].read("volts", f"{level:.9g}")
        return levels

    def _through(self, levels: list[float], n: int = 1) -> Iterator[Measured]:
        """Hold each of `levels` in turn, V, and measure."""
        for level in levels:
            Settings.change(self._channels[n], volts=level)
            yield self._measured(n)


def meter_parameters(volts: float, amps: float, nplc: tuple[float, float, float], **more: Parameter) -> dict[str, Parameter]:
    """The settings of a channel, with the defaults of ``*RST``.

    Args:
        volts: highest, either sign.
        amps: highest, either sign.
        nplc: least, largest, default.
        more: of the model.
    """

    def number(highest: float, default: float, unit: str) -> Number:
        return Number(-highest, highest, default, unit, style=STYLE)

    modes = ("FIXed", "LIST", "SWEep")
    return {
        OUTPUT: Flag(), "function": Choice(("VOLTage", "CURRent"), "VOLT"),
        "volts": number(volts, 0, "V"), "volts_mode": Choice(modes, "FIX"), "volts_range": number(volts, volts / 10, "V"),
        "volts_range_auto": Flag(), "amps": number(amps, 0, "A"), "amps_mode": Choice(modes, "FIX"),
        "amps_range": number(amps, 1e-4 * amps, "A"), "amps_range_auto": Flag(), "compliance_v": number(volts, volts / 10, "V"),
        "compliance_a": number(amps, 1e-4 * amps, "A"), "sense_volts_range": number(volts, volts / 10, "V"),
        "sense_volts_range_auto": Flag(True), "sense_amps_range": number(amps, 1e-4 * amps, "A"),
        "sense_amps_range_auto": Flag(True), "nplc": Number(*nplc, style=STYLE), **more,
    }  # fmt: skip


def any_function(call: Call) -> None:
    """Take what is to be measured, of a model that measures all of it in any case."""
    if not all(isinstance(token, Quoted) for token in call.take(1, 3)):
        raise ScpiError(-104)


def elements_of(call: Call, order: tuple[str, ...]) -> tuple[str, ...]:
    """The elements of an answer that a command names, in the order of the instrument. Raises: ScpiError: it has no such one."""
    tokens = call.take(1, len(order))
    words = [token.upper() if isinstance(token, str) else "" for token in tokens]
    asked = {LONG.get(word, word) for word in words}
    if not asked <= set(order):
        raise ScpiError(-224, ",".join(words)[:24])
    return tuple(name for name in order if name in asked)
