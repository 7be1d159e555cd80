"""Simulated Keysight N7776C tunable laser: power in W or dBm, wavelength, light on and off.

    SOURce0:POWer 1.5 mW      SOURce0:POWer:UNIT 0|1 (dBm, W)      SOURce0:WAVelength 1550 nm      SOURce0:POWer:STATe 1

Source: Keysight N777-C Series Tunable Laser Sources, Programming Guide, SOURce subsystem. Not simulated: sweeps, logging,
modulation, that the lock has a password which can be changed.
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

HIGHEST_W, DEFAULT_W = 20e-3, 1e-3
WATT, DBM = "1", "0"
SOURCE = "SOURce<0>[:CHANnel]"


class KeysightN7776C(SourceBox):
    """A simulated laser.

    Args:
        serial: serial number.
        lock: of the bench, which gives it.
    """

    def __init__(self, serial: str = "SIM-N7776C-0001", *, lock: threading.Condition | None = None) -> None:
        power = Number(0, HIGHEST_W, DEFAULT_W, "W", style="+.8E")
        wavelength = Number(1490e-9, 1640e-9, 1550e-9, "M", style="+.8E")
        outputs: dict[int, dict[str, Parameter]] = {
            1: {"power": power, "unit": Choice((DBM, WATT), DBM), "wavelength": wavelength, OUTPUT: Flag()}
        }
        super().__init__(("Keysight Technologies", "N7776C", serial, "1.100"), outputs, "power", lock)

    def _table(self) -> Iterator[Command]:
        one = self._channels[1]
        yield Command(f"{SOURCE}:POWer[:LEVel][:IMMediate][:AMPLitude]", self._put_power, self._get_power)
        yield Command(f"{SOURCE}:POWer:UNIT", self._put_unit, lambda call: f"+{one.text('unit')}")
        yield setting(f"{SOURCE}:POWer:STATe", OUTPUT, lambda call: one)
        yield setting(f"{SOURCE}:WAVelength[:CW]", "wavelength", lambda call: one)

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
        if watts > HIGHEST_W:
            raise ScpiError(-222, text[:24])
        one.change(power=watts)

    def _get_power(self, call: Call) -> str:
        one = self._channels[1]
        if call.tokens or one.text("unit") == WATT:
            return one.shown("power", call)
        return format(10 * math.log10(max(one.number("power"), 1e-15) / 1e-3), "+.8E")
