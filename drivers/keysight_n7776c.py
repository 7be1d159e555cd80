"""Keysight N7776C: a tunable laser, held at a power and a wavelength.

    :SOURce0:POWer:UNIT 1            watts          :SOURce0:POWer <W>        :SOURce0:WAVelength <m>
    :SOURce0:POWer:STATe 0|1         the light; *RST switches it off

Source: Keysight N777-C Series Tunable Laser Sources, Programming Guide, SOURce subsystem. PyMeasure's KeysightN7776C works the
simulated box with them (tests/interop). From the manual and data sheet only: 1490 to 1640 nm, and 20 mW (13 dBm) at most. Not
used: sweeps, logging, modulation, the lock with its password.
"""

from __future__ import annotations

from drivers.laser import laser
from drivers.links.link import Link
from drivers.scpi import Expect, Scpi
from drivers.scpi_source import ScpiSource

HIGHEST_W = 20e-3
SHORTEST_M, LONGEST_M = 1490e-9, 1640e-9


class KeysightN7776C(ScpiSource):
    """The laser. It can hold power and wavelength.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        high_w: largest power, W.

    Raises:
        OutOfRange: a limit wider than the instrument's. WrongInstrument.
    """

    def __init__(self, scpi: Scpi | Link, *, high_w: float = HIGHEST_W) -> None:
        who = Expect(("Keysight", "Agilent"), "N7776C")
        super().__init__(scpi, lambda: laser(who, ":SOUR0", HIGHEST_W, (SHORTEST_M, LONGEST_M), high_w))
