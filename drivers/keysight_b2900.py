"""Keysight B2900 series: a source-meter of one or two channels, level by level or along a list.

    :SOURce<n>:FUNCtion:MODE VOLT      :SOURce<n>:VOLTage <V>           :SOURce<n>:VOLTage:MODE FIXed|LIST
    :SENSe<n>:CURRent:PROTection <A>   :SENSe<n>:CURRent:RANGe <A>      :SENSe<n>:CURRent:NPLCycles <n>
    :FORMat:ELEMents:SENSe CURR,STAT   :MEASure? (@<n>)                 both; 2 and 4: in compliance, 8192: beyond the range
    :SOURce<n>:LIST:VOLTage <V>,...    :TRIGger<n>:COUNt <k>    :INITiate (@1,2)    then :FETCh:ARRay? (@<n>)
    :OUTPut<n> 0|1                     :TRIGger<n>:ACQuire:DELay <s>    between a level and its measurement

Source: Keysight B2900 SCPI Command Reference, edition 2, 1-14 (bits of the status), 2-36 (output ranges: 210 V, 3.03 A, and up
to 6 V, 21 V, 210 V at up to 3.03 A, 1.515 A, 0.105 A), chapter 4 (subsystems FETCh, FORMat, INITiate, MEASure, OUTPut, SENSe,
SOURce, TRIGger). QCoDeS' KeysightB2962A, a source of the same family and words, works the simulated box (tests/interop). From
the manual only: lists, status, and 9.91E37 for no number. Not used: pulses, limit tests, both channels in one question.
"""

from __future__ import annotations

from collections.abc import Sequence

from drivers.links.link import Link
from drivers.read_back import Setting
from drivers.scpi import Expect, Scpi
from drivers.scpi_source import Layout, Level, per_channel, resting
from drivers.source_meter import Columns, Measuring, SourceMeter, check_nplc, driven, listed, meter_levels
from hil.errors import ConfigError, OutOfRange
from hil.port import Limit

MODELS = {"B2901": 1, "B2902": 2, "B2911": 1, "B2912": 2}  # and their channels; what follows, A, B or BL, changes nothing here
HIGHEST_V = 210.0
HIGHEST_A = ((6.0, 3.03), (21.0, 1.515), (HIGHEST_V, 0.105))  # up to so many V, so many A
HELD_BACK = 2 | 4 | 8192


class KeysightB2900(SourceMeter):
    """The source-meter, sourcing V and measuring A. It can hold voltage and compliance, of several channels voltage_1, ….

    Args:
        scpi: an open conversation with the instrument, or a Link.
        channels: those that are used, 1, 2 or both; the other one stays off.
        low_v, high_v: narrower limits of the levels, V; a list: of each channel.
        range_a: range of the measured currents, A, either sign; also the compliance of the sources.
        nplc: how long a measurement integrates, in periods of the mains, 0.0004 to 100.
        slew_v_per_s: largest rate of a level, V/s, and of its way down before it is switched off; None: any.
        max_step_v: largest step of a level, V; None: any.

    Raises:
        OutOfRange, ConfigError: settings that the instrument does not have. WrongInstrument.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channels: tuple[int, ...] = (1,),
        low_v: float | tuple[float, ...] = -20.0,
        high_v: float | tuple[float, ...] = 20.0,
        range_a: float = 1e-3,
        nplc: float = 0.1,
        slew_v_per_s: float | tuple[float, ...] | None = None,
        max_step_v: float | tuple[float, ...] | None = None,
    ) -> None:
        self.channels = tuple(channels)
        super().__init__(scpi, lambda: _layout(self.channels, low_v, high_v, range_a, nplc, slew_v_per_s, max_step_v), range_a)

    def _met(self) -> None:
        there = next((count for model, count in MODELS.items() if self.identity.model.upper().startswith(model)), 1)
        if max(self.channels) > there:
            raise ConfigError(
                "the instrument has one channel", where=self._called, got=f"channels = {list(self.channels)}", allowed="1",
                outputs="unchanged; nothing was sent", todo="correct channels in the bench file",
            )  # fmt: skip


def _layout(
    channels: tuple[int, ...], low_v: float | Sequence[float], high_v: float | Sequence[float], range_a: float, nplc: float,
    slew_v_per_s: Limit | None, max_step_v: Limit | None,
) -> tuple[Layout, Measuring]:  # fmt: skip
    if not channels or len(set(channels)) != len(channels) or not set(channels) <= {1, 2}:
        raise ConfigError(
            "the source-meter has no such channels", where="source-meter", got=f"channels = {list(channels)}",
            allowed="1, 2, each once", outputs="unchanged; nothing was sent",
        )  # fmt: skip
    count = len(channels)
    check_nplc("source-meter", nplc, 4e-4, 100)
    low, high = per_channel("low_v", low_v, count), per_channel("high_v", high_v, count)
    every = ",".join(map(str, channels))
    levels: dict[str, Level] = {}
    setup, besides = [f":OUTP{c} 0" for c in channels], []
    for c, limits in zip(channels, zip(low, high, strict=True), strict=True):
        widest, tail = max(map(abs, limits)), "" if count == 1 else f"_{c}"
        most_a = next((amps for volts, amps in HIGHEST_A if widest <= volts), HIGHEST_A[-1][1])
        words = (f":SOUR{c}:VOLT", f":SENS{c}:CURR:PROT")
        mine = meter_levels("source-meter", tail, (HIGHEST_V, HIGHEST_A[0][1]), limits, range_a, words)
        if range_a > most_a:
            raise OutOfRange(
                "so much current is not to be had at so many volts", where=f"source-meter channel {c}", got=f"{range_a:g} A",
                allowed=f"up to {most_a:g} A at {widest:g} V", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        levels |= mine
        setup += [
            f":SOUR{c}:FUNC:MODE VOLT", f":SOUR{c}:VOLT:MODE FIX", f":SOUR{c}:VOLT:RANG {widest:.9g}",
            f":SOUR{c}:VOLT {resting(mine[f'voltage{tail}'].port)[0]:.9g}", f':SENS{c}:FUNC "CURR"',
            f":SENS{c}:CURR:PROT {range_a:.9g}", f":SENS{c}:CURR:RANG {range_a:.9g}", f":SENS{c}:CURR:NPLC {nplc:.9g}",
            f":TRIG{c}:COUN 1", f":TRIG{c}:ACQ:DEL 0", f":OUTP{c}:ON:AUTO 0",
        ]  # fmt: skip
        besides += [
            Setting(f"source{tail}", f":SOUR{c}:FUNC:MODE?", "word"),
            Setting(f"source mode{tail}", f":SOUR{c}:VOLT:MODE?", "word"),
            Setting(f"source range{tail}", f":SOUR{c}:VOLT:RANG?", unit="V"),
            Setting(f"range{tail}", f":SENS{c}:CURR:RANG?", unit="A"),
            Setting(f"integration{tail}", f":SENS{c}:CURR:NPLC?"),
        ]
    named = tuple(name for name in levels if name.startswith("voltage"))
    switch = ";".join(f":OUTP{c} {{0}}" for c in channels)

    def begin(columns: Columns, settle_s: float) -> tuple[str, ...]:
        return (
            *(f":SOUR{c}:LIST:VOLT {listed(levels)}" for c, levels in zip(channels, columns, strict=True)),
            *(f":TRIG{c}:ACQ:DEL {settle_s:.6g}" for c in channels), *(f":TRIG{c}:COUN {len(columns[0])}" for c in channels),
            *(f":SOUR{c}:VOLT:MODE LIST" for c in channels), f":INIT (@{every})",
        )  # fmt: skip

    return Layout(
        "source-meter", Expect(("Keysight", "Agilent"), tuple(MODELS)), levels, named,
        driven("source-meter", low, high, count, slew_v_per_s, max_step_v), switch, _asked(channels), count,
        (*setup, ":FORM:ELEM:SENS CURR,STAT"), (*besides, Setting("elements", ":FORM:ELEM:SENS?", "word")),
    ), Measuring(
        nplc, tuple(f":MEAS? (@{c})" for c in channels), HELD_BACK, begin,
        lambda points: tuple(f":FETC:ARR? (@{c})" for c in channels),
        tuple(words for c in channels for words in (f":SOUR{c}:VOLT:MODE FIX", f":TRIG{c}:COUN 1", f":TRIG{c}:ACQ:DEL 0")),
    )  # fmt: skip


def _asked(channels: Sequence[int]) -> str:
    return ";".join(f":OUTP{c}?" for c in channels)
