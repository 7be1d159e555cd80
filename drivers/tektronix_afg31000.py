"""Tektronix AFG31000 function generators in basic mode: one channel, records in edit memory, triggered by the bus or an edge.

    TRACe:DATA EMEMory1,#<d><bytes><uint16...>       0 .. 0x3FFF, big-endian; one period of what is played
    SOURce1:FUNCtion:SHAPe EMEMory1; SOURce1:FREQuency:FIXed <rate / points>        a record is a period, so rate is per record
    SOURce1:BURSt:MODE TRIGgered; NCYCles 1; TDELay MINimum; STATe ON; TRIGger:SEQuence:SOURce EXTernal; *TRG
    OUTPut:TRIGger:MODE TRIGger         an edge at Trigger Output when a burst begins
    volts = offset + (2 code / 0x3FFF - 1) amplitude / 2

*TRG and an edge at Trigger Input do the same. Edit memory 1 is one for both channels, so one channel is used. The front panel
has no lock that the manual names. One command goes in a message.

Source: AFG3000 and AFG31000 Series Programmer Manuals (077-0743, 077-1148), "TRACe", "SOURce:BURSt", "TRIGger", "OUTPut";
AFG31000 data sheet (basic mode: 2 to 131,072 points, 250 MSa/s above 16,384). Records and bursts are from the manual only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from drivers.links.block import header
from drivers.read_back import Setting
from drivers.scpi import Scpi
from drivers.scpi_apart import OneByOne
from drivers.scpi_generator import FULL_SCALE, INFINITE, Channel, Model, OneChannelGenerator, held_levels, load_text
from drivers.scpi_talk import ONE_BY_ONE
from drivers.waveform.record import Codes, Memory
from hil.errors import CommandRefused

TOP = 0x3FFF
AFG = Model(250e6, Memory(2, 131_072))


class TektronixAFG31000(OneChannelGenerator):
    """The generator, with one channel in use; arguments as of OneChannelGenerator. The constructor resets it: outputs off."""

    MODELS: ClassVar[Mapping[str, Model]] = {
        f"AFG31{band}{channels}": AFG for band in ("02", "05", "10", "15", "25") for channels in (1, 2)
    }
    switch: ClassVar[tuple[str, str]] = ("OFF", "ON")
    talk: ClassVar[str] = ONE_BY_ONE
    speaks: ClassVar[type[Scpi]] = OneByOne
    _rate_hz = 0.0  # of the record that is prepared

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        """The frequency is not among them: it follows the length of the record, and is read back with each."""
        source, output = channel.source, channel.output
        return (
            *held_levels(channel, f"{output}:IMP"),
            Setting("polarity", f"{output}:POL?", "word"),
            Setting("unit of the amplitude", f"{source}:VOLT:UNIT?", "word"),
            Setting("function", f"{source}:FUNC:SHAP?", "word"),
            Setting("burst", f"{source}:BURS:STAT?", "flag"),
            Setting("burst mode", f"{source}:BURS:MODE?", "word"),
            Setting("burst cycles", f"{source}:BURS:NCYC?"),
            Setting("trigger delay", f"{source}:BURS:TDEL?", unit="s", tolerance=1e-12),
        )

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting("trigger source", ":TRIG:SEQ:SOUR?", "word"),
            Setting("trigger output", ":OUTP:TRIG:MODE?", "word"),
        )

    def _levels(self, channel: Channel) -> tuple[str, ...]:
        """The load goes first, because it moves the levels; the offset is 0 while the amplitude moves."""
        volts = f"{channel.source}:VOLT"
        return (
            f"{channel.output}:IMP {load_text(self._load_ohm, 'INFinity')}",
            f"{channel.output}:POL NORM",
            f"{volts}:UNIT VPP",
            f"{volts}:OFFS 0",
            f"{volts} {channel.amplitude_vpp:.9g}",
            f"{volts}:OFFS {channel.offset_v:.9g}",
        )

    def _play_once(self, sample_rate_hz: float, external: bool) -> tuple[str, ...]:
        """A trigger from the bus and one at the input do the same, so `external` changes nothing."""
        self._rate_hz = sample_rate_hz
        (channel,) = self._channels
        source = channel.source
        return (
            f"{source}:FUNC:SHAP EMEM1",
            f"{source}:BURS:MODE TRIG",
            f"{source}:BURS:NCYC 1",
            f"{source}:BURS:TDEL MIN",
            f"{source}:BURS:STAT ON",
            ":TRIG:SEQ:SOUR EXT",
            ":OUTP:TRIG:MODE TRIG",
        )

    def _told(self, channel: Channel, sample_rate_hz: float) -> Iterable[tuple[str, float | str, str]]:
        source = channel.source
        return (
            (f"{source}:VOLT?", channel.amplitude_vpp, "Vpp"),
            (f"{source}:VOLT:OFFS?", channel.offset_v, "V"),
            (f"{channel.output}:IMP?", min(self._load_ohm, INFINITE), "ohm"),
            (f"{source}:BURS:NCYC?", 1.0, "cycles"),
            (":TRIG:SEQ:SOUR?", "EXT", ""),
        )

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,), which is one period; see ScpiGenerator.upload."""
        self._check_record(codes)
        source, link = self._channels[channel].source, self._scpi.link
        shares = (codes.astype(np.int32) + FULL_SCALE) * TOP
        words = np.ascontiguousarray((shares + FULL_SCALE) // (2 * FULL_SCALE), dtype=">u2")  # -32767 is 0, 32767 is TOP
        hertz = self._rate_hz / len(words)
        with link.transaction():
            link.write(b":TRAC:DATA EMEM1,", header(words.nbytes), words.view(np.uint8).data)
            self._scpi.send(f"{source}:FUNC:SHAP EMEM1", f"{source}:FREQ:FIX {hertz:.12g}")
            errors = self._scpi.errors()
            found = self._scpi.ask_float(f"{source}:FREQ:FIX?")
        if errors:
            raise self._not_taken("; ".join(errors))
        if abs(found / hertz - 1) > 1e-6:
            self.forget()
            raise CommandRefused(
                "the generator does not play at this rate", where=self._called, got=f"{found:g} Hz", allowed=f"{hertz:g} Hz",
                outputs=f"at rest, inside {self._reach}", todo="lower the symbol rate, or take more symbols a record",
            )  # fmt: skip

    def trigger(self) -> None:
        """Play the record once. Does not wait for its end."""
        self._scpi.link.write(b"*TRG")
