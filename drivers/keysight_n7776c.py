"""Keysight N7776C: a tunable laser, held at a power and a wavelength.

    :SOURce0:POWer:UNIT 1            watts          :SOURce0:POWer <W>        :SOURce0:WAVelength <m>
    :SOURce0:POWer:STATe 0|1         the light; *RST switches it off

Source: Keysight N777-C Series Tunable Laser Sources, Programming Guide, SOURce subsystem; the same words drive the 81600B in an
8164B mainframe. PyMeasure's KeysightN7776C works the simulated box with them (tests/interop). From the manual and data sheet
only: 1490 to 1640 nm, and 20 mW (13 dBm) at most. Not used: sweeps, logging, modulation, the lock with its password.
"""

from __future__ import annotations

from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import Expect, Scpi
from drivers.scpi_source import Layout, Level, ScpiSource
from hil.device import Port

HIGHEST_W = 20e-3
SHORTEST_M, LONGEST_M = 1490e-9, 1640e-9
SOURCE = ":SOUR0"


class KeysightN7776C(ScpiSource):
    """The laser. It can hold power and wavelength.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        high_w: largest power, W.

    Raises:
        OutOfRange: a limit wider than the instrument's. WrongInstrument.
    """

    def __init__(self, scpi: Scpi | Link, *, high_w: float = HIGHEST_W) -> None:
        super().__init__(scpi, lambda: _layout(high_w))


def _layout(high_w: float) -> Layout:
    power = Port("laser power", 0.0, HIGHEST_W, "W").narrowed(0.0, high_w)
    wavelength = Port("laser wavelength", SHORTEST_M, LONGEST_M, "m")
    levels = {
        "power": Level(power, f"{SOURCE}:POW {{}}", f"{SOURCE}:POW?", resolution=1e-6),
        "wavelength": Level(wavelength, f"{SOURCE}:WAV {{}}", f"{SOURCE}:WAV?", resolution=0.1e-12),
    }
    drive = Port("laser power", 0.0, high_w, "W", 1)
    return Layout(
        "laser", Expect(("Keysight", "Agilent"), "N7776C"), levels, ("power",), drive, f"{SOURCE}:POW:STAT {{}}",
        f"{SOURCE}:POW:STAT?", 1, (f"{SOURCE}:POW:STAT 0", f"{SOURCE}:POW:UNIT 1"),
        (Setting("unit of the power", f"{SOURCE}:POW:UNIT?"),),
    )  # fmt: skip
