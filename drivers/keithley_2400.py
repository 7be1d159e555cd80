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

from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import Expect, Scpi
from drivers.scpi_source import Layout, resting
from drivers.source_meter import Columns, Measuring, SourceMeter, check_nplc, driven, meter_levels

HIGHEST = (210.0, 1.05)  # V, A
IN_COMPLIANCE = 8


class Keithley2400(SourceMeter):
    """The source-meter, sourcing V and measuring A. It can hold voltage and compliance.

    Args:
        scpi: an open conversation with the instrument, or a Link.
        low_v, high_v: narrower limits of the level, V.
        range_a: range of the measured current, A, either sign; also the compliance of the source.
        nplc: how long a measurement integrates, in periods of the mains, 0.01 to 10.
        slew_v_per_s: largest rate of the level, V/s, and of its way down before it is switched off; None: any.
        max_step_v: largest step of the level, V; None: any.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument.
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


def _layout(
    low_v: float, high_v: float, range_a: float, nplc: float, slew_v_per_s: float | None, max_step_v: float | None
) -> tuple[Layout, Measuring]:
    check_nplc("source-meter", nplc, 0.01, 10)
    words = (":SOUR:VOLT", ":SENS:CURR:PROT")
    levels = meter_levels("source-meter", "", HIGHEST, (low_v, high_v), range_a, words)
    setup = (
        ":OUTP 0", ":SOUR:FUNC VOLT", ":SOUR:VOLT:MODE FIX", f":SOUR:VOLT:RANG {max(abs(low_v), abs(high_v)):.9g}",
        f":SOUR:VOLT {resting(levels['voltage'].port)[0]:.9g}", ':SENS:FUNC "CURR"', f":SENS:CURR:PROT {range_a:.9g}",
        f":SENS:CURR:RANG {range_a:.9g}", f":SENS:CURR:NPLC {nplc:.9g}", ":FORM:ELEM CURR,STAT", ":TRIG:COUN 1", ":SOUR:DEL 0",
        ":SOUR:CLE:AUTO 0",
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
    return Layout(
        "source-meter", Expect("Keithley", "MODEL 2400"), levels, ("voltage",),
        driven("source-meter", low_v, high_v, 1, slew_v_per_s, max_step_v), ":OUTP {}", ":OUTP?", 1, setup, besides,
    ), Measuring(
        nplc, (":READ?",), IN_COMPLIANCE, _begin, lambda count: (":READ?",),
        (":SOUR:VOLT:MODE FIX", ":TRIG:COUN 1", ":SOUR:DEL 0"),
    )  # fmt: skip


def _begin(columns: Columns, settle_s: float) -> tuple[str, ...]:
    (levels,) = columns
    listed = ",".join(f"{value:.9g}" for value in levels)
    return f":SOUR:LIST:VOLT {listed}", f":SOUR:DEL {settle_s:.6g}", f":TRIG:COUN {len(levels)}", ":SOUR:VOLT:MODE LIST"
