"""Thorlabs PM100D, also PM100A, PM100USB and PM400: a meter of optical power with a sensor of a known wavelength.

    SYSTem:SENSor:IDN?                 name,serial,calibration,type,subtype,flags     1: power, 32: a wavelength can be set
    SENSe:CORRection:WAVelength <nm>   the sensor says by ? MIN and ? MAX what it takes
    SENSe:POWer:UNIT W                 SENSe:POWer:RANGe <W>    SENSe:POWer:RANGe:AUTO 0    SENSe:AVERage:COUNt <n>, 0.3 ms each
    CONFigure:POWer    READ?           W

The instrument clamps what is out of its range, so what is set is read back. Its messages end by END of USB; two questions
without reading give a mix of two answers (PM100USB manual, p. 20), which this conversation never does.

Source: Thorlabs PM100D Operation Manual, 17654-D02, pp. 49 to 51 (commands, flags of the sensor); PM400 manual p. 42. The
package ThorlabsPM100, PyMeasure's ThorlabsPM100USB and QCoDeS' PM100D work the simulated box (tests/interop). From the manual
only: that a power beyond the range is answered 9.9E37. Not used: energy, current and voltage of the sensor, zeroing.
"""

from __future__ import annotations

from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import Expect, Scpi
from drivers.scpi_meter import MeterLayout, ScpiMeter
from hil.device import Port
from hil.errors import ConfigError, OutOfRange
from hil.units import finite

MODELS = ("PM100", "PM400")
POWER, WAVELENGTH = 1, 32
MOST_AVERAGES = 10_000
LEAST_W, HIGHEST_W = 1e-12, 1e3  # of any sensor: what its own range is, it says itself


class ThorlabsPM100D(ScpiMeter):
    """The power meter with its sensor.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        wavelength_m: of the light, m; inside what the sensor takes.
        range_w: largest power, W; the instrument takes its range that holds it.
        averages: samples of a reading, 0.3 ms each, 1 to 10000.

    Raises:
        OutOfRange, ConfigError: settings that instrument or sensor do not have. WrongInstrument: also another kind of sensor.
    """

    def __init__(self, scpi: Scpi | Link, *, wavelength_m: float = 1550e-9, range_w: float = 1e-3, averages: int = 1) -> None:
        self._nm = wavelength_m * 1e9
        super().__init__(scpi, lambda: _layout(self._nm, range_w, averages))

    def _met(self) -> None:
        """The sensor must measure power at this wavelength."""
        reply = self._scpi.ask(":SYST:SENS:IDN?")
        try:
            flags = int(reply.rsplit(",", 1)[-1])
            low, high = (finite(self._scpi.ask(f":SENS:CORR:WAV? {word}")) for word in ("MIN", "MAX"))
        except ValueError:
            flags, low, high = 0, 0.0, 0.0
        if not flags & POWER or not flags & WAVELENGTH:
            raise ConfigError(
                "the power meter has no sensor of power at a wavelength", where=self._layout.name, got=reply[:80],
                allowed="a photodiode sensor", outputs="it has none", todo="connect the sensor, then open it again",
            )  # fmt: skip
        if not low <= self._nm <= high:
            raise OutOfRange(
                "the sensor does not take this wavelength", where=f"{self._layout.name} wavelength_m", got=f"{self._nm:g} nm",
                allowed=f"{low:g} to {high:g} nm", outputs="it has none",
            )  # fmt: skip

    def prepare(self) -> None:
        """Bring it to its known state. Raises: OutOfRange: the sensor's ranges end below the one that is asked for."""
        if self._ready:
            return
        super().prepare()
        got = self._scpi.ask_float(":SENS:POW:RANG?")
        if got < self.reading.shared_high * 0.999:
            self.forget()
            raise OutOfRange(
                "the sensor has no such range", where=f"{self._layout.name} range_w", got=f"{self.reading.shared_high:g} W",
                allowed=f"up to {got:g} W", outputs="it has none",
            )  # fmt: skip


def _layout(nm: float, range_w: float, averages: int) -> MeterLayout:
    if not 1 <= averages <= MOST_AVERAGES:
        raise ConfigError("no such number of averages", where="power meter averages", got=f"{averages}",
                          allowed=f"1 to {MOST_AVERAGES}", outputs="it has none")  # fmt: skip
    Port("power meter range", LEAST_W, HIGHEST_W, "W").narrowed(LEAST_W, range_w)
    return MeterLayout(
        "power meter", Expect("Thorlabs", MODELS), Port("optical power", -range_w, range_w, "W", 1), ":READ?",
        (
            ":ABOR", ":CONF:POW", ":SENS:POW:UNIT W", f":SENS:CORR:WAV {nm:.9g}", ":SENS:POW:RANG:AUTO 0",
            f":SENS:POW:RANG {range_w:.9g}", f":SENS:AVER:COUN {averages}",
        ),
        (
            Setting("unit", ":SENS:POW:UNIT?", "word"),
            Setting("wavelength", ":SENS:CORR:WAV?", unit="nm", tolerance=0.01),
            Setting("automatic range", ":SENS:POW:RANG:AUTO?", "flag"),
            Setting("range", ":SENS:POW:RANG?", unit="W"),
            Setting("averages", ":SENS:AVER:COUN?"),
            Setting("attenuation", ":SENS:CORR?", unit="dB"),
        ),
    )  # fmt: skip
