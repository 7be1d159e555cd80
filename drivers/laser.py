"""Common parts of tunable lasers of Keysight: a power in W and a wavelength in m that are held, and the light, on or off."""

from __future__ import annotations

from drivers.read_back import Setting
from drivers.scpi import Expect
from drivers.scpi_source import Layout, Level
from hil.device import Port


def laser(
    expect: Expect, source: str, highest_w: float, wavelengths_m: tuple[float, float], high_w: float,
    besides: tuple[Setting, ...] = (),
) -> Layout:  # fmt: skip
    """Describe a laser.

    Args:
        expect: who must answer.
        source: its header, ":SOUR0".
        highest_w: of the instrument.
        wavelengths_m: shortest and longest.
        high_w: largest power that is allowed, W.
        besides: what else is read back.

    Raises:
        OutOfRange: a power above the instrument's.
    """
    power = Port("laser power", 0.0, highest_w, "W").narrowed(0.0, high_w)
    wavelength = Port("laser wavelength", *wavelengths_m, "m")
    levels = {
        "power": Level(power, f"{source}:POW {{}}", f"{source}:POW?", resolution=1e-6),
        "wavelength": Level(wavelength, f"{source}:WAV {{}}", f"{source}:WAV?", resolution=0.1e-12),
    }
    drive = Port("laser power", 0.0, high_w, "W", 1)
    return Layout(
        "laser", expect, levels, ("power",), drive, f"{source}:POW:STAT {{}}", f"{source}:POW:STAT?", 1,
        (f"{source}:POW:STAT 0", f"{source}:POW:UNIT 1"), (Setting("unit of the power", f"{source}:POW:UNIT?"), *besides),
    )  # fmt: skip
