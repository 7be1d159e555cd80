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
from drivers.read_back import Setting
from drivers.scpi import Expect
from drivers.source_meter import Asked, Columns, Measuring, OneSourceMeter, Words, listed

LIMITED = 32
BUFFER = '"defbuffer1",READ,SOURSTAT'


class Keithley2450(OneSourceMeter):
    """The source-meter, sourcing V and measuring A. It can hold voltage and compliance.

    Arguments as of OneSourceMeter, and

    Args:
        nplc: how long a measurement integrates, in periods of the mains, 0.01 to 10.

    Raises:
        WrongInstrument: also one in another language.
    """

    expect = Expect("Keithley", "MODEL 2450")
    highest = (210.0, 1.05)
    periods = (0.01, 10.0)
    compliance = ":SOUR:VOLT:ILIM"

    def _met(self) -> None:
        check_scpi(self._scpi, self._called)

    def _words(self, asked: Asked) -> Words:
        setup = (
            ":OUTP 0", ":SOUR:FUNC VOLT", f":SOUR:VOLT:RANG {asked.widest_v:.9g}", f":SOUR:VOLT {asked.rest_v:.9g}",
            f"{self.compliance} {asked.range_a:.9g}", ":SOUR:VOLT:DEL 0", ':SENS:FUNC "CURR"',
            f":SENS:CURR:RANG {asked.range_a:.9g}", f":SENS:CURR:NPLC {asked.nplc:.9g}", ":SENS:COUN 1", ":FORM:DATA ASC",
        )  # fmt: skip
        besides = (
            Setting("source", ":SOUR:FUNC?", "word"),
            Setting("source range", ":SOUR:VOLT:RANG?", unit="V"),
            Setting("measured", ":SENS:FUNC?", "word"),
            Setting("range", ":SENS:CURR:RANG?", unit="A"),
            Setting("integration", ":SENS:CURR:NPLC?"),
        )
        read, run = (f":READ? {BUFFER}",), lambda count: (f":TRAC:DATA? 1,{count},{BUFFER}",)
        return Words(setup, besides, Measuring(asked.nplc, read, LIMITED, _begin, run))


def _begin(columns: Columns, settle_s: float) -> tuple[str, ...]:
    (levels,) = columns
    return (
        f":SOUR:LIST:VOLT {listed(levels)}", ':TRAC:CLE "defbuffer1"', f":SOUR:SWE:VOLT:LIST 1,{settle_s:.6g}", ":INIT", "*WAI",
    )  # fmt: skip
