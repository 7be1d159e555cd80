"""Keithley 2450, in its SCPI language: a source-meter that holds a voltage and measures the current, also along a list.

    *LANG?                                                  SCPI; after *LANG SCPI the instrument has to be switched off and on
    :SOURce:FUNCtion VOLT      :SOURce:VOLTage <V>          :SOURce:VOLTage:ILIMit <A>           the compliance
    :SENSe:FUNCtion "CURR"     :SENSe:CURRent:RANGe <A>     :SENSe:CURRent:NPLCycles <n>
    :READ? "defbuffer1",READ,SOURSTATus                     current and state of the source; 32: held back at the limit
    :SOURce:LIST:VOLTage <V>,...                            100 levels at most
    :SOURce:SWEep:VOLTage:LIST 1,<s>;:INITiate;*WAI         then :TRACe:DATA? 1,<n>,"defbuffer1",READ,SOURSTATus

Source: Model 2450 Interactive SourceMeter Instrument Reference Manual, 2450-901-01 Rev. B, 6-78 (lists; -210 to 210 V, -1.05 to
1.05 A), 6-85 (sweeps), 6-109 (:TRACe:DATA?), 8-29 (state of the source), appendix C-4 (registers). The drivers of PyMeasure and
QCoDeS work the simulated box (tests/interop). From the manual only: the list, the bits of the state, and 9.9E37 where a current
is beyond its range. The instrument documents no lock of its front panel that a program could ask for.
"""

from __future__ import annotations

from drivers.keithley_language import check_scpi
from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import Expect, Scpi
from drivers.scpi_source import Layout, resting
from drivers.source_meter import Columns, Measuring, SourceMeter, check_nplc, driven, meter_levels

HIGHEST = (210.0, 1.05)  # V, A
LIMITED = 32
BUFFER = '"defbuffer1",READ,SOURSTAT'


class Keithley2450(SourceMeter):
    """The source-meter, sourcing V and measuring A. It can hold voltage and compliance.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        low_v, high_v: narrower limits of the level, V.
        range_a: range of the measured current, A, either sign; also the compliance of the source.
        nplc: how long a measurement integrates, in periods of the mains, 0.01 to 10.
        slew_v_per_s: largest rate of the level, V/s, and of its way down before it is switched off; None: any.
        max_step_v: largest step of the level, V; None: any.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument: also one in another language.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        low_v: float = -20.0,
        high_v: float = 20.0,
        range_a: float = 1e-3,
        nplc: float = 0.1,
        slew_v_per_s: float | None = None,
        max_step_v: float | None = None,
    ) -> None:
        self.channels = (1,)
        super().__init__(scpi, lambda: _layout(low_v, high_v, range_a, nplc, slew_v_per_s, max_step_v), range_a)

    def _met(self) -> None:
        check_scpi(self._scpi, self._called)


def _layout(
    low_v: float, high_v: float, range_a: float, nplc: float, slew_v_per_s: float | None, max_step_v: float | None
) -> tuple[Layout, Measuring]:
    check_nplc("source-meter", nplc, 0.01, 10)
    words = (":SOUR:VOLT", ":SOUR:VOLT:ILIM")
    levels = meter_levels("source-meter", "", HIGHEST, (low_v, high_v), range_a, words)
    setup = (
        ":OUTP 0", ":SOUR:FUNC VOLT", f":SOUR:VOLT:RANG {max(abs(low_v), abs(high_v)):.9g}",
        f":SOUR:VOLT {resting(levels['voltage'].port)[0]:.9g}", f":SOUR:VOLT:ILIM {range_a:.9g}", ":SOUR:VOLT:DEL 0",
        ':SENS:FUNC "CURR"', f":SENS:CURR:RANG {range_a:.9g}", f":SENS:CURR:NPLC {nplc:.9g}", ":SENS:COUN 1", ":FORM:DATA ASC",
    )  # fmt: skip
    besides = (
        Setting("source", ":SOUR:FUNC?", "word"),
        Setting("source range", ":SOUR:VOLT:RANG?", unit="V"),
        Setting("measured", ":SENS:FUNC?", "word"),
        Setting("range", ":SENS:CURR:RANG?", unit="A"),
        Setting("integration", ":SENS:CURR:NPLC?"),
    )
    return Layout(
        "source-meter", Expect("Keithley", "MODEL 2450"), levels, ("voltage",),
        driven("source-meter", low_v, high_v, 1, slew_v_per_s, max_step_v), ":OUTP {}", ":OUTP?", 1, setup, besides,
    ), Measuring(nplc, (f":READ? {BUFFER}",), LIMITED, _begin, lambda count: (f":TRAC:DATA? 1,{count},{BUFFER}",))  # fmt: skip


def _begin(columns: Columns, settle_s: float) -> tuple[str, ...]:
    (levels,) = columns
    listed = ",".join(f"{value:.9g}" for value in levels)
    return f":SOUR:LIST:VOLT {listed}", ':TRAC:CLE "defbuffer1"', f":SOUR:SWE:VOLT:LIST 1,{settle_s:.6g}", ":INIT", "*WAI"
