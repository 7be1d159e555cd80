"""Common parts of simulated tunable lasers of Keysight: power in W or dBm, wavelength, light on and off.

SOURce0:POWer 1.5 mW      SOURce0:POWer:UNIT 0|1 (dBm, W)      SOURce0:WAVelength 1550 nm      SOURce0:POWer:STATe 1
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter, number
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import setting
from sim_devices.instruments.source_box import OUTPUT, SourceBox

DEFAULT_W = 1e-3
WATT, DBM = "1", "0"
STYLE = "+.8E"


class LaserBox(SourceBox):
    """A simulated laser.

    Args:
        identity: the four fields of ``*IDN?``.
        source: pattern of its header, "SOURce<0>".
        highest_w: largest power.
        wavelengths_m: shortest, longest, default.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, identity: tuple[str, str, str, str], source: str, highest_w: float, wavelengths_m: tuple[float, float, float],
        lock: threading.Condition | None,
    ) -> None:  # fmt: skip
        self._source, self._highest_w = f"{source}[:CHANnel]", highest_w
        power = Number(0, highest_w, DEFAULT_W, "W", style=STYLE)
        outputs: dict[int, dict[str, Parameter]] = {
            1: {
                "power": power, "unit": Choice((DBM, WATT), DBM), "wavelength": Number(*wavelengths_m, "M", style=STYLE),
                OUTPUT: Flag(),
            }
        }  # fmt: skip
        super().__init__(identity, outputs, "power", lock)

    def _table(self) -> Iterator[Command]:
        one = self._channels[1]
        yield Command(f"{self._source}:POWer[:LEVel][:IMMediate][:AMPLitude]", self._put_power, self._get_power)
        yield Command(f"{self._source}:POWer:UNIT", self._put_unit, lambda call: f"+{one.text('unit')}")
        yield Command(f"{self._source}:POWer:STATe", self._switch, lambda call: one.shown(OUTPUT, call))
        yield setting(f"{self._source}:WAVelength[:CW]", "wavelength", lambda call: one)

    def _switch(self, call: Call) -> None:
        self._channels[1].change(**{OUTPUT: self._channels[1].read(OUTPUT, call.only())})

    def _put_unit(self, call: Call) -> None:
        word = call.word()
        unit = {"0": DBM, "DBM": DBM, "1": WATT, "W": WATT, "WATT": WATT}.get(word)
        if unit is None:
            raise ScpiError(-224, word)
        self._channels[1].change(unit=unit)

    def _put_power(self, call: Call) -> None:
        one, token = self._channels[1], call.only()
        text = token.upper().replace(" ", "") if isinstance(token, str) else ""
        dbm = text.endswith("DBM") or (one.text("unit") == DBM and not text.endswith("W"))
        if not dbm:
            one.change(power=one.read("power", token))
            return
        level = number(text.removesuffix("DBM"), "")
        watts = 1e-3 * 10 ** (min(level, 100.0) / 10)
        if watts > self._highest_w:
            raise ScpiError(-222, text[:24])
        one.change(power=watts)

    def _get_power(self, call: Call) -> str:
        one = self._channels[1]
        if call.tokens or one.text("unit") == WATT:
            return one.shown("power", call)
        return format(10 * math.log10(max(one.number("power"), 1e-15) / 1e-3), STYLE)
