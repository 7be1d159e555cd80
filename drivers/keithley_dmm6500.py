"""Keithley DMM6500, in its SCPI language: a meter of a DC voltage or current.

    *LANG?                            SCPI; after *LANG SCPI the instrument has to be switched off and on
    :SENSe:FUNCtion "VOLT:DC"         :SENSe:VOLTage:RANGe <V>      :SENSe:VOLTage:NPLCycles <n>      :SENSe:COUNt 1
    :SENSe:FUNCtion "CURR:DC"         :SENSe:CURRent:RANGe <A>      :READ?

Source: Model DMM6500 Reference Manual, DMM6500-901-01, sections "SCPI command reference" (:READ?, :SENSe) and "Determining the
command set you will use"; data sheet (ranges 100 mV to 1000 V, 10 uA to 3 A at the front terminals; 0.0005 to 12 periods of 50
Hz). The drivers of PyMeasure and QCoDeS work the simulated box (tests/interop). From the manual only: 9.9E37 where a reading is
beyond its range. Not used: scans, digitizing, filters, the other functions.
"""

from __future__ import annotations

from drivers.keithley_language import check_scpi
from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import Expect, Scpi
from drivers.scpi_meter import MeterLayout, ScpiMeter
from drivers.source_meter import check_nplc
from hil.device import Port

HIGHEST_V, HIGHEST_A, LEAST = 1000.0, 3.0, 1e-6


class KeithleyDMM6500(ScpiMeter):
    """The meter, measuring a DC voltage.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        range_v: largest value, V, either sign; the instrument takes its range that holds it.
        nplc: how long a measurement integrates, in periods of the mains, 0.0005 to 12.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument: also one in another language.
    """

    def __init__(self, scpi: Scpi | Link, *, range_v: float = 10.0, nplc: float = 0.1) -> None:
        super().__init__(scpi, lambda: _layout("VOLT", "V", HIGHEST_V, range_v, nplc))

    def _met(self) -> None:
        check_scpi(self._scpi, self._layout.name)


class KeithleyDMM6500Current(KeithleyDMM6500):
    """The meter, measuring a DC current.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        range_a: largest value, A, either sign; the instrument takes its range that holds it.
        nplc: how long a measurement integrates, in periods of the mains, 0.0005 to 12.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument: also one in another language.
    """

    def __init__(self, scpi: Scpi | Link, *, range_a: float = 1e-3, nplc: float = 0.1) -> None:
        ScpiMeter.__init__(self, scpi, lambda: _layout("CURR", "A", HIGHEST_A, range_a, nplc))


def _layout(word: str, unit: str, most: float, largest: float, nplc: float) -> MeterLayout:
    check_nplc("multimeter", nplc, 5e-4, 12)
    Port("multimeter range", LEAST, most, unit).narrowed(LEAST, largest)
    sense = f":SENS:{word}"
    return MeterLayout(
        "multimeter", Expect("Keithley", "MODEL DMM6500"), Port("multimeter", -largest, largest, unit, 1), ":READ?",
        (f':SENS:FUNC "{word}:DC"', f"{sense}:RANG {largest:.9g}", f"{sense}:NPLC {nplc:.9g}", ":SENS:COUN 1"),
        (
            Setting("function", ":SENS:FUNC?", "word"),
            Setting("range", f"{sense}:RANG?", unit=unit),
            Setting("integration", f"{sense}:NPLC?"),
        ),
    )  # fmt: skip
