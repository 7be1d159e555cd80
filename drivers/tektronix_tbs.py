"""Tektronix TBS1000C, TBS2000 and TBS2000B oscilloscopes: channels triggered by an edge, read as bytes.

    HORizontal:SCAle <s>; HORizontal:RECOrdlength <n>       1, 2 or 4 times a power of ten; rate = n / (16 x scale)
    DATa:ENCdg RIBinary; DATa:WIDth 1                       signed bytes, 25 a division

The record is 16 divisions long, where the screen shows 15. A word of two bytes is a byte times 256 while YMUlt stays that of a
byte, so bytes are read. XZEro has five digits, too few for the place of a sample in a long record: the first sample is where
the delay has put it, and XZEro must agree within its digits. After *RST probes count as 10:1. Averages have bytes too. Rear
AUX OUT is no input: where there is no AUX IN, the edge goes into a channel (`trigger_channel`).

Source: TBS2000 Series Programmer Manual (077-1149-02), "Horizontal", "Waveform transfer" (p. 32), "TRIGger:A:LEVel:CH<x>"
(p. 229); TBS1000C specifications (record lengths, 1-2-4 sequence, Aux In ±6.25 V); TBS2000 data sheet (10 divisions, offsets).
16 divisions, digits and the byte's YMUlt: the reply of a TBS2204B to WFMOutpre? that others recorded (200 us/div, 20,000
points: XINcr 160.0000E-9, XZEro -1.6000E-3). Records of 5 and 20 million points are not offered, nor 2 GSa/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from drivers.edge_channel import EdgeAtChannel
from drivers.read_back import Setting
from drivers.scope_models import Model, Rails, known
from drivers.scope_records import Asked, Channel
from drivers.scpi import Identity
from drivers.scpi_digitizer import RANGE
from drivers.tektronix_scope import FORM, LENGTH, TektronixScope
from drivers.time_bases import TimeBases
from drivers.waveform.record import Axis, Memory, Words

ACROSS = 16  # divisions of a record
CENTRE = 128
HIGHEST_HZ = 1e9
DIGITS = 5e-5  # of XZEro: half of the last one


@dataclass(frozen=True, slots=True)
class Family:
    """Holds what a family shares: divisions of the screen's height, lengths of records, if it has an external trigger."""

    divisions: int
    lengths: tuple[int, ...]
    external: bool


C1000 = Family(8, (1_000, 2_000, 20_000), True)
T2000 = Family(10, (2_000, 20_000, 200_000, 2_000_000), False)
MODELS = {f"TBS1{width}2C": C1000 for width in ("05", "07", "10", "15", "20")}
MODELS |= {f"TBS2{width}{count}": T2000 for width in ("07", "10", "20") for count in (2, 4)}


class TektronixTBS(TektronixScope, EdgeAtChannel):
    """The scope, with one channel in use, or several that one trigger records; arguments as of EdgeAtChannel."""

    rails: ClassVar[Rails] = Rails(0, 255)
    averaging = "its words have eight bits in every mode"
    form = (FORM, "1;RI;MSB")
    display = ":SEL:CH{}"
    encoding, centre = ("RIB", 1), CENTRE
    across = (Setting(RANGE, ":HOR:SCA?", unit="s"), Setting(LENGTH, ":HOR:RECO?"))

    def _limits(self, identity: Identity) -> Model:
        family = known(MODELS, identity, ", ".join(MODELS))
        self._check_inputs(identity, family.external, int(identity.model.strip().rstrip("BC")[-1]))
        self.divisions, self._bases = family.divisions, TimeBases(family.lengths, ACROSS, HIGHEST_HZ, (1, 2, 4))
        return Model(HIGHEST_HZ, Memory(1, family.lengths[-1]))

    def _held_input(self, header: str, tail: str) -> tuple[Setting, ...]:
        return (Setting(f"bandwidth limit{tail}", f"{header}:BAN?", "word"),)

    def _set_input(self, header: str) -> tuple[str, ...]:
        return (f"{header}:PRO:GAIN 1",)

    def _edge(self) -> tuple[str, str]:
        channel = self._edge_channel
        return (f"CH{channel}", f":TRIG:A:LEV:CH{channel}") if channel else ("AUX", ":TRIG:A:LEV")

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        base = self._time_base(samples, rate_hz)
        self._points = base.depth
        middle_s = start_s + 0.5 * base.span_s
        self._scpi.send(f":HOR:RECO {base.depth}", f":HOR:SCA {base.scale_s:.9g}", f":HOR:DEL:TIM {middle_s:.12g}")
        self._took(":HOR:RECO?", base.depth, "points")
        self._took(":HOR:SCA?", base.scale_s, "s")

    def _axis(self, told: Axis, asked: Asked) -> Axis:
        """The first sample is where the delay has put it, if the preamble says so as well as it can."""
        samples, rate_hz, start_s = asked
        exact = Axis(start_s, 1 / self._time_base(samples, rate_hz).rate_hz)
        near = abs(told.start_s - start_s) <= exact.step_s + DIGITS * abs(start_s)
        return exact if near and abs(told.step_s / exact.step_s - 1) < DIGITS else told

    def _words(self, one: Channel) -> Words:
        """Read signed bytes; they are returned shifted, so that none is negative."""
        codes = self._scpi.ask_block(self._ends(one), "i1", one.points)
        words: Words = (codes.astype(np.int16) + CENTRE).astype(np.uint16)
        return words
