"""Keysight 33500B and 33600A waveform generators: one channel or both, arbitrary records, triggered by the bus or an edge.

    [SOURce<n>:]DATA:VOLatile:CLEar                        volatile memory; a name cannot be used twice without it
    FORMat:BORDer SWAPped                                  little-endian int16
    [SOURce<n>:]DATA:ARBitrary:DAC <name>,#<d><bytes><int16...>     -32767 .. +32767
    [SOURce<n>:]FUNCtion:ARBitrary <name>                  then FUNCtion ARB, FUNCtion:ARBitrary:SRATe, :FILTer OFF

Source: Keysight 33500B/33600A Series Operating and Service Guide, "DATA Subsystem", "FUNCtion Subsystem".
FILTer NORMal would smooth the samples, so it is OFF, which bounds the rate (data sheets 5991-0692EN, 5991-3272EN). A wrong
OUTPut:LOAD is a factor of up to 2 in volts. SYSTem:LOCK:REQuest? locks the front panel, Local key included, and keeps other
interfaces from setting anything; it is given back by SYSTem:LOCK:RELease, or when the connection ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from drivers.links.block import header
from drivers.read_back import Setting
from drivers.scpi_generator import FULL_SCALE as FULL_SCALE
from drivers.scpi_generator import (
    INFINITE,
    NAME,
    NO_ERROR,
    Channel,
    Model,
    ScpiGenerator,
    held_levels,
    load_text,
)
from drivers.waveform.record import Codes, Memory
from hil.errors import CommandRefused

B = Model(62.5e6, Memory(8, 1_048_576))
A = Model(250e6, Memory(32, 4_194_304))


class Keysight33600(ScpiGenerator):
    """The generator, with one channel in use, or both; arguments as of ScpiGenerator.

    The constructor resets it: outputs off, volatile memory empty.
    """

    MODELS: ClassVar[Mapping[str, Model]] = {
        "33511B": B, "33512B": B, "33521B": B, "33522B": B, "33611A": A, "33612A": A, "33621A": A, "33622A": A,
    }  # fmt: skip
    lock: ClassVar[tuple[str, str]] = (":SYST:LOCK:REQ?", ":SYST:LOCK:REL")

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        source, output, n, tail = channel.source, channel.output, channel.number, channel.tail
        relay, load, amplitude, offset = held_levels(channel, f"{output}:LOAD")
        return (
            relay,
            Setting(f"polarity{tail}", f"{output}:POL?", "word"),
            load,
            Setting(f"unit of the amplitude{tail}", f"{source}:VOLT:UNIT?", "word"),
            amplitude,
            offset,
            Setting(f"high limit{tail}", f"{source}:VOLT:LIM:HIGH?", unit="V", tolerance=1e-6),
            Setting(f"low limit{tail}", f"{source}:VOLT:LIM:LOW?", unit="V", tolerance=1e-6),
            Setting(f"limits{tail}", f"{source}:VOLT:LIM:STAT?", "flag"),
            Setting(f"function{tail}", f"{source}:FUNC?", "word"),
            Setting(f"filter{tail}", f"{source}:FUNC:ARB:FILT?", "word"),
            Setting(f"sample rate{tail}", f"{source}:FUNC:ARB:SRAT?", unit="Sa/s"),
            Setting(f"burst{tail}", f"{source}:BURS:STAT?", "flag"),
            Setting(f"burst mode{tail}", f"{source}:BURS:MODE?", "word"),
            Setting(f"burst cycles{tail}", f"{source}:BURS:NCYC?"),
            Setting(f"trigger source{tail}", f":TRIG{n}:SOUR?", "word"),
            Setting(f"trigger delay{tail}", f":TRIG{n}:DEL?", unit="s", tolerance=1e-12),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting("sync output", ":OUTP:SYNC?", "flag"),
            Setting("sync source", ":OUTP:SYNC:SOUR?", "word"),
            Setting("byte order", ":FORM:BORD?", "word"),
        )

    def _levels(self, channel: Channel) -> tuple[str, ...]:
        """No limit is set while the levels move, no offset while the amplitude does."""
        volts, half = f"{channel.source}:VOLT", 0.5 * channel.amplitude_vpp
        return (
            f"{channel.output}:LOAD {load_text(self._load_ohm)}",
            f"{volts}:LIM:STAT 0",
            f"{volts}:UNIT VPP",
            f"{volts}:OFFS 0",
            f"{volts} {channel.amplitude_vpp:.9g}",
            f"{volts}:OFFS {channel.offset_v:.9g}",
            f"{volts}:LIM:HIGH {channel.offset_v + half:.9g}",
            f"{volts}:LIM:LOW {channel.offset_v - half:.9g}",
            f"{volts}:LIM:STAT 1",
        )

    def _play_once(self, sample_rate_hz: float, external: bool) -> tuple[str, ...]:
        played = []
        for channel in self._channels:
            source = channel.source
            played += [
                f"{source}:FUNC ARB",
                f"{source}:FUNC:ARB:FILT OFF",
                f"{source}:FUNC:ARB:SRAT {sample_rate_hz:.12g}",
                f"{source}:BURS:MODE TRIG",
                f"{source}:BURS:NCYC 1",
                f"{source}:BURS:STAT 1",
                f":TRIG{channel.number}:SOUR {'EXT' if external else 'BUS'}",
            ]
        return (":FORM:BORD SWAP", *played, f":OUTP:SYNC:SOUR CH{self._channels[0].number}", ":OUTP:SYNC 1")

    def _verify(self, sample_rate_hz: float) -> None:
        order = self._scpi.ask(":FORM:BORD?")
        if not order.upper().startswith("SWAP"):
            raise CommandRefused(
                "the generator did not take the byte order (:FORM:BORD)", where=self._called, got=order, allowed="SWAP",
                outputs="off", todo="every sample would be another one: update the firmware, or use another generator",
            )  # fmt: skip
        super()._verify(sample_rate_hz)

    def _told(self, channel: Channel, sample_rate_hz: float) -> Iterable[tuple[str, float | str, str]]:
        return (
            (f"{channel.output}:LOAD?", min(self._load_ohm, INFINITE), "ohm"),
            (f"{channel.source}:VOLT?", channel.amplitude_vpp, "Vpp"),
            (f"{channel.source}:VOLT:OFFS?", channel.offset_v, "V"),
            (f"{channel.source}:FUNC:ARB:SRAT?", sample_rate_hz, "Sa/s"),
        )

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,) in the volatile memory of a channel; see ScpiGenerator.upload."""
        self._check_record(codes)
        source, link = self._channels[channel].source, self._scpi.link
        with link.transaction():  # one round trip: the answer to the question comes after all that stands before it
            lead = f"{source}:DATA:VOL:CLE;:{source[1:]}:DATA:ARB:DAC {NAME},".encode()
            link.write(lead, header(codes.nbytes), np.ascontiguousarray(codes, dtype="<i2").data)
            reply = self._scpi.ask(f"{source}:FUNC:ARB {NAME};{source}:FUNC ARB;:SYST:ERR?")
        if not NO_ERROR.match(reply):
            raise self._not_taken("; ".join((reply, *self._scpi.errors())))

    def trigger(self) -> None:
        """Play the records of all channels once. Does not wait for their end."""
        self._scpi.link.write(b"*TRG")
