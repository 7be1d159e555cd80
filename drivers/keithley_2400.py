"""Keithley 2400: a source-meter that holds a voltage and measures the current, level by level or along a list.

    :SOURce:FUNCtion VOLT   :SOURce:VOLTage:MODE FIXed|LIST   :SOURce:VOLTage[:LEVel] <V>     not valid in the list mode
    :SENSe:FUNCtion "CURR"  :SENSe:CURRent:PROTection <A>     :SENSe:CURRent:RANGe <A>        :SENSe:CURRent:NPLCycles <n>
    :FORMat:ELEMents CURR,STAT    :READ?                      both, or both for each of :TRIGger:COUNt; 8: in compliance
    :SOURce:LIST:VOLTage <V>,...  :SOURce:DELay <s>           100 levels at most; measured at each of them after the delay

Source: Series 2400 SourceMeter User's Manual, 2400S-900-01 Rev. K, chapters 10 (sweeps), 17 and 18 (commands, status word
18-47, limits: -210 to 210 V, -1.05 to 1.05 A, 18-78 and 18-91). PyMeasure's Keithley2400 works the simulated box with the words
for source, compliance and range (tests/interop). From the manual only: the list, the status word, and that 9.91E37 is answered
where a current is beyond its range.
"""

from __future__ import annotations

from drivers.read_back import Setting
from drivers.scpi import Expect
from drivers.source_meter import Asked, Columns, Measuring, OneSourceMeter, Words, listed

IN_COMPLIANCE = 8


class Keithley2400(OneSourceMeter):
    """The source-meter, sourcing V and measuring A. It can hold voltage and compliance.

    Arguments as of OneSourceMeter, and

    Args:
        nplc: how long a measurement integrates, in periods of the mains, 0.01 to 10.
    """

    expect = Expect("Keithley", "MODEL 2400")
    highest = (210.0, 1.05)
    periods = (0.01, 10.0)
    compliance = ":SENS:CURR:PROT"

    def _words(self, asked: Asked) -> Words:
        setup = (
            ":OUTP 0", ":SOUR:FUNC VOLT", ":SOUR:VOLT:MODE FIX", f":SOUR:VOLT:RANG {asked.widest_v:.9g}",
            f":SOUR:VOLT {asked.rest_v:.9g}", ':SENS:FUNC "CURR"', f"{self.compliance} {asked.range_a:.9g}",
            f":SENS:CURR:RANG {asked.range_a:.9g}", f":SENS:CURR:NPLC {asked.nplc:.9g}", ":FORM:ELEM CURR,STAT",
            ":TRIG:COUN 1", ":SOUR:DEL 0", ":SOUR:CLE:AUTO 0",
        )  # fmt: skip
        besides = (
            Setting("source", ":SOUR:FUNC?", "word"),
            Setting("source mode", ":SOUR:VOLT:MODE?", "word"),
            Setting("source range", ":SOUR:VOLT:RANG?", unit="V"),
            Setting("range", ":SENS:CURR:RANG?", unit="A"),
            Setting("integration", ":SENS:CURR:NPLC?"),
            Setting("elements", ":FORM:ELEM?", "word"),
            Setting("automatic output", ":SOUR:CLE:AUTO?", "flag"),
        )
        end = (":SOUR:VOLT:MODE FIX", ":TRIG:COUN 1", ":SOUR:DEL 0")
        measuring = Measuring(asked.nplc, (":READ?",), IN_COMPLIANCE, _begin, lambda count: (":READ?",), end)
        return Words(setup, besides, measuring)


def _begin(columns: Columns, settle_s: float) -> tuple[str, ...]:
    (levels,) = columns
    return (
        f":SOUR:LIST:VOLT {listed(levels)}", f":SOUR:DEL {settle_s:.6g}", f":TRIG:COUN {len(levels)}", ":SOUR:VOLT:MODE LIST",
    )  # fmt: skip
