"""Rigol DG800 and DG900 waveform generators: one channel, records sample by sample, triggered by a command or an edge.

    :SOURce1:DATA:DAC16 VOLATILE,CON|END,#<d><bytes><uint16...>     0 .. 0x3FFF, little-endian; packets of 8 to 16,384 points,
                                                                    the last one is END
    :SOURce1:FUNCtion SEQ; :FUNCtion:SEQ:SRATe <Sa/s>; :FUNCtion:SEQ:FILTer STEP       each sample held, none between them
    :SOURce1:BURSt:MODE TRIG; NCYCles 1; TRIGger:SOURce MAN; TRIGger:TRIGOut POS; IDLE FPT; STATe ON; :BURSt:TRIGger
    volts = offset + (2 code / 0x3FFF - 1) amplitude / 2

Trigger input and output of a channel are one connector at the rear, and each channel is triggered on its own: one is used. One
command goes in a message. The front panel has no lock that the guide names.

Source: DG800 Programming Guide, ":SOURce:TRACe" (p. 2-136, ranges and packets), ":SOURce:BURSt", ":SOURce:FUNCtion", ":OUTPut";
the same burst commands in the DG2000 Programming Guide (p. 2-58 to 2-63); data sheet of the DG800 (sequences 2 kSa/s to
60 MSa/s, 2 Mpts). Records and bursts are from the manual only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from drivers.links.block import header
from drivers.read_back import Setting
from drivers.scpi import Scpi
from drivers.scpi_apart import OneByOne
from drivers.scpi_generator import (
    FULL_SCALE,
    INFINITE,
    Channel,
    Model,
    OneChannelGenerator,
    held_levels,
    load_text,
)
from drivers.scpi_talk import ONE_BY_ONE
from drivers.waveform.record import Codes, Memory

TOP = 0x3FFF
PACKET, LEAST = 16_384, 8  # points
DG = Model(60e6, Memory(LEAST, 2_097_152))


class RigolDG(OneChannelGenerator):
    """The generator, with one channel in use; arguments as of OneChannelGenerator. The constructor resets it: outputs off."""

    MODELS: ClassVar[Mapping[str, Model]] = dict.fromkeys(
        ("DG811", "DG812", "DG821", "DG822", "DG831", "DG832", "DG952", "DG972", "DG992"), DG
    )
    switch: ClassVar[tuple[str, str]] = ("OFF", "ON")
    talk: ClassVar[str] = ONE_BY_ONE
    speaks: ClassVar[type[Scpi]] = OneByOne

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        source, output = channel.source, channel.output
        return (
            *held_levels(channel, f"{output}:LOAD"),
            Setting("polarity", f"{output}:POL?", "word"),
            Setting("unit of the amplitude", f"{source}:VOLT:UNIT?", "word"),
            Setting("function", f"{source}:FUNC?", "word"),
            Setting("filter", f"{source}:FUNC:SEQ:FILT?", "word"),
            Setting("sample rate", f"{source}:FUNC:SEQ:SRAT?", unit="Sa/s"),
            Setting("burst", f"{source}:BURS:STAT?", "flag"),
            Setting("burst mode", f"{source}:BURS:MODE?", "word"),
            Setting("burst cycles", f"{source}:BURS:NCYC?"),
            Setting("trigger source", f"{source}:BURS:TRIG:SOUR?", "word"),
            Setting("trigger output", f"{source}:BURS:TRIG:TRIGO?", "word"),
            Setting("trigger delay", f"{source}:BURS:TDEL?", unit="s", tolerance=1e-12),
        )

    def _levels(self, channel: Channel) -> tuple[str, ...]:
        """The load goes first, because it moves the levels; the offset is 0 while the amplitude moves."""
        volts = f"{channel.source}:VOLT"
        return (
            f"{channel.output}:LOAD {load_text(self._load_ohm, 'INFinity')}",
            f"{channel.output}:POL NORM",
            f"{volts}:UNIT VPP",
            f"{volts}:OFFS 0",
            f"{volts} {channel.amplitude_vpp:.9g}",
            f"{volts}:OFFS {channel.offset_v:.9g}",
        )

    def _play_once(self, sample_rate_hz: float, external: bool) -> tuple[str, ...]:
        (channel,) = self._channels
        source = channel.source
        return (
            f"{source}:FUNC SEQ",
            f"{source}:FUNC:SEQ:FILT STEP",
            f"{source}:FUNC:SEQ:SRAT {sample_rate_hz:.12g}",
            f"{source}:BURS:MODE TRIG",
            f"{source}:BURS:NCYC 1",
            f"{source}:BURS:IDLE FPT",
            f"{source}:BURS:TRIG:SOUR {'EXT' if external else 'MAN'}",
            f"{source}:BURS:TRIG:TRIGO POS",
            f"{source}:BURS:STAT ON",
        )

    def _told(self, channel: Channel, sample_rate_hz: float) -> Iterable[tuple[str, float | str, str]]:
        source = channel.source
        return (
            (f"{channel.output}:LOAD?", min(self._load_ohm, INFINITE), "ohm"),
            (f"{source}:FUNC?", "SEQ", ""),
            (f"{source}:VOLT?", channel.amplitude_vpp, "Vpp"),
            (f"{source}:VOLT:OFFS?", channel.offset_v, "V"),
            (f"{source}:FUNC:SEQ:SRAT?", sample_rate_hz, "Sa/s"),
            (f"{source}:BURS:STAT?", "ON", ""),
        )

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,) of the channel, in packets; see ScpiGenerator.upload."""
        self._check_record(codes)
        source, link = self._channels[channel].source, self._scpi.link
        shares = (codes.astype(np.int32) + FULL_SCALE) * TOP
        words = ((shares + FULL_SCALE) // (2 * FULL_SCALE)).astype("<u2")  # rounded; -32767 is 0, 32767 is TOP
        with link.transaction():
            for begin, end in _packets(len(words)):
                part, flag = words[begin:end], "END" if end == len(words) else "CON"
                link.write(
                    f"{source}:DATA:DAC16 VOLATILE,{flag},".encode(), header(part.nbytes), np.ascontiguousarray(part).data
                )
            self._scpi.send(f"{source}:FUNC SEQ")  # END switches to arbitrary waveforms
            errors = self._scpi.errors()
        if errors:
            raise self._not_taken("; ".join(errors))

    def trigger(self) -> None:
        """Play the record once. Does not wait for its end."""
        self._scpi.link.write(f"{self._channels[0].source}:BURS:TRIG".encode())


def _packets(points: int) -> list[tuple[int, int]]:
    """First point and the one behind the last of each packet; none is shorter than LEAST."""
    starts = list(range(0, points, PACKET))
    if points - starts[-1] < LEAST:
        starts[-1] = points - LEAST
    return list(zip(starts, [*starts[1:], points], strict=True))
