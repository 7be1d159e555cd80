"""Tektronix 2, 4, 5 and 6 Series MSO oscilloscopes: channels triggered from outside, read as 16-bit words.

    HORizontal:MODe MANual; HORizontal:MODe:SAMPLERate <Sa/s>; HORizontal:MODe:RECOrdlength <n>
    ACQuire:MODe AVErage; NUMAVg <n>                    one record is then the mean of n, 16 bits; ACQuire:NUMACq? says how many

*RST gives big-endian bytes, and SR and RI differ in the order alone.

Source: 4/5/6 Series MSO Programmer Manual (077-1305), "Waveform transfer", "Horizontal", "Acquisition", "Trigger"; data sheets
(10 divisions; 6.25 GSa/s, 2 Series 1.25 GSa/s with all channels). The ladder of rates is assumed: 1, 2, 5, 10, ... below the
highest; the rate is read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivers.read_back import Setting
from drivers.scope_models import Averaging, Model, Rails, beginnings, known
from drivers.scope_records import CENTRE, Asked, Channel, unsigned
from drivers.scpi import Identity, Scpi, reading
from drivers.scpi_digitizer import RANGE
from drivers.tektronix_scope import FORM, LENGTH, TektronixScope
from drivers.time_bases import Rates
from drivers.waveform.record import Axis, Memory, Words

LEAST = 1_000  # points of a record
LADDER = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))
MODELS = {
    "MSO2": Model(1.25e9, Memory(LEAST, 10_000_000)),
    "MSO4": Model(6.25e9, Memory(LEAST, 31_250_000)),
    "MSO5": Model(6.25e9, Memory(LEAST, 62_500_000)),
    "MSO6": Model(6.25e9, Memory(LEAST, 62_500_000)),
}


def _waits(scpi: Scpi, taken: int) -> bool:
    count, _, state = scpi.ask(":ACQ:NUMAC?;:TRIG:STATE?").partition(";")
    return state.upper() == "READY" and int(reading(count)) >= taken


class TektronixMSO(TektronixScope):
    """The scope, with one channel in use, or several that one trigger records. The constructor resets it.

    Arguments as of ScpiDigitizer, and

    Args:
        input_ohm: 50 or 1e6; a 2 Series has 1e6 alone.
    """

    inputs: ClassVar[Mapping[float, str]] = {50.0: "50", 1e6: "1E6"}
    rails: ClassVar[Rails] = Rails(0, 0xFFF0)
    averaging = Averaging(
        10_240, (":ACQ:MOD AVE", ":ACQ:NUMAV {}"), {"averages": ":ACQ:NUMAV?"}, waits=_waits,
        complete=lambda scpi, records: scpi.ask_int(":ACQ:NUMAC?") == records,
    )  # fmt: skip
    form = (FORM, "2;RI;LSB")
    display = ":DIS:GLO:CH{}:STATE"
    divisions = 10
    encoding, centre = ("SRI", 2), CENTRE
    across = (
        Setting("horizontal mode", ":HOR:MOD?", "word"),
        Setting(RANGE, ":HOR:MODE:SAMPLER?", unit="Sa/s"),
        Setting(LENGTH, ":HOR:MODE:RECO?"),
    )

    def _limits(self, identity: Identity) -> Model:
        model = known(MODELS, identity, beginnings(MODELS))
        self._bases = Rates(model.rate_hz, LADDER)
        self._points = model.memory.least
        return model

    def _held_input(self, header: str, tail: str) -> tuple[Setting, ...]:
        return (
            Setting(f"impedance{tail}", f"{header}:TER?", unit="ohm"),
            Setting(f"external attenuation{tail}", f"{header}:PROBEF:EXTA?"),
            Setting(f"bandwidth limit{tail}", f"{header}:BAN?", unit="Hz"),
        )

    def _set_input(self, header: str) -> tuple[str, ...]:
        return (f"{header}:TER {self._input}",)

    def _edge(self) -> tuple[str, str]:
        return "AUX", ":TRIG:AUXL"

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        assert isinstance(self._bases, Rates)
        rate = self._bases.clock_hz / self._bases.divider(rate_hz, self._name)
        self._points = max(LEAST, round(samples * rate / rate_hz))
        middle_s = start_s + 0.5 * self._points / rate
        self._scpi.send(
            ":HOR:MOD MAN", f":HOR:MODE:SAMPLER {rate:.9g}", f":HOR:MODE:RECO {self._points}", f":HOR:DEL:TIM {middle_s:.12g}"
        )
        self._took(":HOR:MODE:SAMPLER?", rate, "Sa/s")
        self._took(":HOR:MODE:RECO?", self._points, "points")

    def _axis(self, told: Axis, asked: Asked) -> Axis:
        return told

    def _words(self, one: Channel) -> Words:
        """Read signed words; they are returned shifted, so that none is negative."""
        return unsigned(self._scpi.ask_block(self._ends(one), "<i2", one.points))
