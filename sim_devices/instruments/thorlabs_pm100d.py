"""Simulated Thorlabs PM100D power meter with a photodiode sensor: power in W, ranges, averages, wavelength in nm.

    SENSe:CORRection:WAVelength 1550    SENSe:POWer:RANGe 1e-3    READ?  ->  5.00000000E-04        ranges: 1.3 uW to 130 mW

What is out of its range is clamped, and nothing is said. A power beyond a range that was chosen reads 9.90000000E+37. The same
light reads differently at another wavelength: the responsivity of the sensor is taken as growing with it.

Source: Thorlabs PM100D Operation Manual, 17654-D02, pp. 49 to 51; PM100USB manual p. 20; sensor S144C (800 to 1700 nm). Not
simulated: energy and thermal sensors, the zero's own time, beams, adapters.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from sim_devices.instruments.meter_box import MeterBox
from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter, number
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting

STYLE = ".8E"
BEYOND = "9.90000000E+37"
RANGES_W = tuple(1.3 * 10.0**k for k in range(-6, 0))
LOWEST_NM, HIGHEST_NM = 800.0, 1700.0
FLAGS = 1 + 32 + 256


class ThorlabsPM100D(MeterBox):
    """A simulated power meter.

    Args:
        serial: serial number.
        power_w: at its sensor, until a plant says otherwise.
        light_nm: wavelength of that light.
        sensor: True if there is one.
        lock: of the bench, which gives it.
    """

    def __init__(
        self, serial: str = "SIM-PM100D-01", *, power_w: float = 0.0, light_nm: float = 1550.0, sensor: bool = True,
        lock: threading.Condition | None = None,
    ) -> None:  # fmt: skip
        self._light_nm, self._sensor, self._zero = light_nm, sensor, 0.0
        self._last = ""
        super().__init__(("Thorlabs", "PM100D", serial, "2.4.0"), _parameters(), lambda _: power_w, lock)

    def _table(self) -> Iterator[Command]:
        def of(call: Call) -> Settings:
            return self._settings

        power, correct = "[SENSe]:POWer[:DC]", "[SENSe]:CORRection"
        yield Command("SYSTem:SENSor:IDN", get=lambda call: self._identity_of_sensor())
        yield self._clamped(f"{correct}:WAVelength", "nm", LOWEST_NM, HIGHEST_NM)
        yield self._clamped(f"{correct}[:LOSS[:INPut[:MAGNitude]]]", "attenuation", -60, 60)
        yield self._clamped(f"{correct}:BEAMdiameter", "beam", 0.1, 100)
        yield Command(f"{correct}:COLLect:ZERO[:INITiate]", lambda call: self._zeroed())
        yield Command(f"{correct}:COLLect:ZERO:STATe", get=lambda call: "0")
        yield Command(f"{correct}:COLLect:ZERO:MAGNitude", get=lambda call: format(self._zero, STYLE))
        yield Command(f"{correct}:COLLect:ZERO:ABORt", lambda call: call.none())
        yield self._clamped("[SENSe]:AVERage[:COUNt]", "averages", 1, 10_000)
        yield Command(f"{power}:RANGe[:UPPer]", self._put_range, self._get_range)
        yield setting(f"{power}:RANGe:AUTO", "auto", of)
        yield setting(f"{power}:UNIT", "unit", of)
        yield self._clamped(f"{power}:REFerence", "reference", 0, 1)
        yield setting(f"{power}:REFerence:STATe", "relative", of)
        yield Command("[SENSe]:CURRent[:DC]:RANGe[:UPPer]", get=lambda call: format(RANGES_W[-1], STYLE))
        yield Command("CONFigure[:SCALar][:POWer]", lambda call: call.none(), lambda call: "POW")
        yield Command("INITiate[:IMMediate]", lambda call: self._take())
        yield Command("ABORt", lambda call: call.none())
        yield Command("FETCh", get=lambda call: self._last or self._measure())
        yield Command("READ", get=lambda call: self._measure())
        yield Command("MEASure[:SCALar][:POWer]", lambda call: self._take(), lambda call: self._measure())
        yield Command("MEASure[:SCALar]:CURRent[:DC]", get=lambda call: format(self._seen() * self._responsivity(), STYLE))
        yield Command("MEASure[:SCALar]:FREQuency", get=lambda call: format(0.0, STYLE))
        for word in ("OPERation", "QUEStionable", "MEASurement", "AUXillary"):
            yield Command(f"STATus:{word}[:EVENt]", get=lambda call: "0")
            yield Command(f"STATus:{word}:CONDition", get=lambda call: "0")
            for part in ("PTRansition", "NTRansition", "ENABle"):
                yield setting(f"STATus:{word}:{part}", f"{word} {part}", of)
        yield Command("STATus:PRESet", lambda call: call.none())
        yield setting("SYSTem:LFRequency", "mains", of)
        yield setting("DISPlay:BRIGhtness", "bright", of)

    def _clamped(self, pattern: str, name: str, low: float, high: float) -> Command:
        """A number that is brought into its range without a word."""

        def put(call: Call) -> None:
            token = call.only()
            word = token.upper() if isinstance(token, str) else ""
            named = word[:3] in ("MIN", "MAX", "DEF")
            value = float(self._settings.read(name, token)) if named else number(token, "")
            self._settings.change(**{name: min(max(value, low), high)})

        return Command(pattern, put, lambda call: self._settings.shown(name, call))

    def _identity_of_sensor(self) -> str:
        return f"S144C,SIM-S144C,01-Jan-2026,1,18,{FLAGS}" if self._sensor else "no sensor,,,0,0,0"

    def _put_range(self, call: Call) -> None:
        """Take the smallest range that holds the value, or the largest."""
        token = call.only()
        word = token.upper() if isinstance(token, str) else ""
        wanted = {"MIN": RANGES_W[0], "MAX": RANGES_W[-1]}.get(word[:3]) or number(token, "W")
        fits = next((one for one in RANGES_W if wanted <= one * (1 + 1e-9)), RANGES_W[-1])
        self._settings.change(range=fits, auto=False)

    def _get_range(self, call: Call) -> str:
        return self._settings.shown("range", call)

    def _responsivity(self) -> float:
        return self._settings.number("nm") / HIGHEST_NM

    def _seen(self) -> float:
        """W, as the sensor tells them if the light has the wavelength that was set."""
        return self._there() * self._light_nm / self._settings.number("nm") * 10 ** (self._settings.number("attenuation") / 10)

    def _measure(self) -> str:
        if not self._sensor:
            raise ScpiError(-221, "no sensor")
        watts = self._seen() - self._zero
        beyond = not self._settings.flag("auto") and abs(watts) > self._settings.number("range") * (1 + 1e-9)
        self._last = BEYOND if beyond else format(watts, STYLE)
        return self._last

    def _take(self) -> None:
        self._measure()

    def _zeroed(self) -> None:
        self._zero = self._seen()

    def _reset(self) -> None:
        self._zero, self._last = 0.0, ""
        super()._reset()


def _parameters() -> dict[str, Parameter]:
    plain = Number(0, 65535, 0, integer=True, style="d")
    registers = {
        f"{word} {part}": plain
        for word in ("OPERation", "QUEStionable", "MEASurement", "AUXillary")
        for part in ("PTRansition", "NTRansition", "ENABle")
    }
    return {
        "nm": Number(LOWEST_NM, HIGHEST_NM, 1550.0, style=STYLE), "attenuation": Number(-60, 60, 0, style=STYLE),
        "beam": Number(0.1, 100, 5.0, style=STYLE), "averages": Number(1, 10_000, 1, integer=True, style="d"),
        "range": Number(RANGES_W[0], RANGES_W[-1], RANGES_W[-1], "W", style=STYLE), "auto": Flag(True),
        "unit": Choice(("W", "DBM"), "W"), "reference": Number(0, 1, 1e-3, style=STYLE), "relative": Flag(),
        "mains": Number(50, 60, 50, integer=True), "bright": Number(0, 1, 1, style=STYLE), **registers,
    }  # fmt: skip
