"""Siglent SDG1000X and SDG2000X waveform generators: one channel, arbitrary records, triggered by hand or an edge.

    C1:BSWV WVTP,ARB,AMP,8,OFST,0       levels; every reply has all fields, "C1:BSWV WVTP,ARB,FRQ,1000HZ,...,AMP,8V,..."
    C1:WVDT WVNM,HIL,WAVEDATA,<int16...>     little-endian, no block header and no length: only the end of the message ends it
    WVDT? USER,HIL  ->  WVDT POS,...,LENGTH,<n>B,...,WAVEDATA,<int16...>
    C1:ARWV NAME,HIL                    play it
    C1:SRATE MODE,TARB,VALUE,<Sa/s>,INTER,HOLD      SDG2000X: sample by sample
    C1:BSWV FRQ,<rate / 16384>          SDG1000X: a record is one period of 16,384 points
    C1:BTWV STATE,ON; GATE_NCYC,NCYC; TIME,1; TRSR,MAN; TRMD,RISE; MTRIG      once for each trigger, an edge at Aux In/Out

The instrument clamps what is out of its range, ignores what does not fit, and has no error queue: every setting is read back,
and so is every record. A newline among the samples would end the message on a raw socket, so the driver refuses one; over
VXI-11 and USB the wire marks the end itself. Trigger input and output are one connector, so one channel is used. The delay
from the trigger (DLAY) has a least value, which is part of the cable's.

Source: Siglent SDG Series Programming Guide PG02-E05C, 3.3 (p. 15), 3.4 (p. 17-20), 3.7 (p. 46-49), 3.9 (p. 50), 3.32
(p. 91-93), SRATE; data sheets of SDG1000X (150 MSa/s, 16 kpts) and SDG2000X (TrueArb 75 MSa/s, 8 Mpts). Forms of replies,
clamping, silence: transcripts of an SDG2042X, firmware 2.01.01.23R7, github.com/pjaako/siglent-sdg-openhtf, tests/data. Neither
bursts of TrueArb records nor WVDT are in them: these are from the manual only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import ClassVar, cast

import numpy as np

from drivers.links.link import Messages
from drivers.read_back import Setting
from drivers.scpi import Scpi
from drivers.scpi_apart import Fields
from drivers.scpi_generator import (
    INFINITE,
    NAME,
    Channel,
    Headers,
    Model,
    OneChannelGenerator,
    held_levels,
    load_text,
)
from drivers.scpi_talk import FIELDS
from drivers.waveform.record import Codes, Memory
from hil.errors import ConfigError

PERIOD = 16_384  # points of a record of the SDG1000X
X1 = Model(150e6, Memory(PERIOD, PERIOD), least_vpp=2e-3)
X2 = Model(75e6, Memory(8, 8_388_608), least_vpp=2e-3)
RECORD = re.compile(rb"WVDT .*?LENGTH, ?(\d+)B.*?WAVEDATA, ?(.*)", re.DOTALL)
ENDS = b"\r\n"  # a wire may take them for the end of a reply


class SiglentSDG(OneChannelGenerator):
    """The generator, with one channel in use; arguments as of OneChannelGenerator. The constructor resets it: outputs off.

    Raises:
        ConfigError: a raw socket, which cannot carry records.
    """

    MODELS: ClassVar[Mapping[str, Model]] = {
        "SDG1032X": X1, "SDG1062X": X1, "SDG2042X": X2, "SDG2082X": X2, "SDG2122X": X2,
    }  # fmt: skip
    headers: ClassVar[Headers] = Headers("C{}:OUTP", "C{}", "C{}:BSWV:AMP", "C{}:BSWV:OFST")
    loads_ohm: ClassVar[tuple[float, float]] = (50.0, 100_000.0)
    switch: ClassVar[tuple[str, str]] = ("OFF", "ON")
    speaks: ClassVar[type[Scpi]] = Fields
    talk: ClassVar[str] = FIELDS
    beginning: ClassVar[tuple[str, ...]] = ("*RST",)

    def _check_link(self) -> None:
        name = self._scpi.link.name
        if name.upper().endswith("::SOCKET"):
            raise ConfigError(
                "this generator's records cannot be sent over a raw socket: a newline among the samples ends them", where=name,
                got="a SOCKET resource", allowed="TCPIP::…::INSTR or USB::…::INSTR", outputs="unchanged; nothing was sent",
                todo="write TCPIP::ADDRESS::inst0::INSTR in the bench file",
            )  # fmt: skip

    @property
    def _sampled(self) -> bool:
        """True if the model plays records sample by sample."""
        return self.MODELS[self.identity.model] is X2

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        source, output = channel.source, channel.output
        rate = (
            (
                Setting("playing mode", f"{source}:SRATE:MODE?", "word"),
                Setting("sample rate", f"{source}:SRATE:VALUE?", unit="Sa/s"),
            )
            if self._sampled
            else (Setting("frequency", f"{source}:BSWV:FRQ?", unit="Hz"),)
        )
        return (
            *held_levels(channel, f"{output}:LOAD"),
            Setting("polarity", f"{output}:PLRT?", "word"),
            Setting("function", f"{source}:BSWV:WVTP?", "word"),
            Setting("phase", f"{source}:BSWV:PHSE?"),
            *rate,
            Setting("burst", f"{source}:BTWV:STATE?", "flag"),
            Setting("burst mode", f"{source}:BTWV:GATE_NCYC?", "word"),
            Setting("burst cycles", f"{source}:BTWV:TIME?", "word"),
            Setting("trigger source", f"{source}:BTWV:TRSR?", "word"),
            Setting("trigger output", f"{source}:BTWV:TRMD?", "word"),
            Setting("trigger delay", f"{source}:BTWV:DLAY?", unit="s", tolerance=1e-9),
        )

    def _levels(self, channel: Channel) -> tuple[str, ...]:
        """The load goes first, because it moves the levels. The offset is 0 while the amplitude moves, which would clamp it."""
        wave = f"{channel.source}:BSWV"
        return (
            f"{channel.output}:LOAD {load_text(self._load_ohm, 'HZ')}",
            f"{channel.output}:PLRT NOR",
            f"{wave}:WVTP ARB",
            f"{wave}:PHSE 0",
            f"{wave}:OFST 0",
            f"{wave}:AMP {channel.amplitude_vpp:.9g}",
            f"{wave}:OFST {channel.offset_v:.9g}",
        )

    def _play_once(self, sample_rate_hz: float, external: bool) -> tuple[str, ...]:
        """A new wave type switches bursts off, and nothing of them is taken while they are off: their state goes on first."""
        (channel,) = self._channels
        burst = f"{channel.source}:BTWV"
        rate = f"{channel.source}:SRATE MODE,TARB,VALUE,{sample_rate_hz:.12g},INTER,HOLD"
        return (
            rate if self._sampled else f"{channel.source}:BSWV:FRQ {sample_rate_hz / PERIOD:.12g}",
            f"{burst}:STATE ON",
            f"{burst}:GATE_NCYC NCYC",
            f"{burst}:TIME 1",
            f"{burst}:TRSR {'EXT' if external else 'MAN'}",
            f"{burst}:EDGE RISE" if external else f"{burst}:TRMD RISE",
        )

    def _told(self, channel: Channel, sample_rate_hz: float) -> Iterable[tuple[str, float | str, str]]:
        source = channel.source
        external = self._scpi.ask(f"{source}:BTWV:TRSR?") == "EXT"
        return (
            (f"{channel.output}:LOAD?", min(self._load_ohm, INFINITE), "ohm"),
            (f"{source}:BSWV:WVTP?", "ARB", ""),
            (f"{source}:BSWV:AMP?", channel.amplitude_vpp, "Vpp"),
            (f"{source}:BSWV:OFST?", channel.offset_v, "V"),
            (f"{source}:SRATE:VALUE?", sample_rate_hz, "Sa/s")
            if self._sampled
            else (f"{source}:BSWV:FRQ?", sample_rate_hz / PERIOD, "Hz"),
            (f"{source}:BTWV:STATE?", "ON", ""),
            (f"{source}:BTWV:TIME?", "1", ""),
            *(() if external else ((f"{source}:BTWV:TRMD?", "RISE", ""),)),
        )

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,), read it back, and play it; see ScpiGenerator.upload."""
        self._check_record(codes)
        source, link = self._channels[channel].source, cast(Messages, self._scpi.link)
        payload = np.ascontiguousarray(codes, dtype="<i2").tobytes()
        with link.transaction():
            link.write(f"{source}:WVDT WVNM,{NAME},WAVEDATA,".encode(), payload)
            link.write(f"WVDT? USER,{NAME}".encode())
            reply = link.read_message()
            found = RECORD.fullmatch(reply)
            if found is None or int(found[1]) != len(payload) or found[2].rstrip(ENDS) != payload.rstrip(ENDS):
                raise self._not_taken(f"{len(reply)} bytes back, {reply[:60]!r}…, for {len(payload)} bytes sent")
            self._scpi.send(f"{source}:ARWV NAME,{NAME}")
            taken = self._scpi.ask(f"{source}:ARWV:NAME?")
        if taken.strip('"').upper() != NAME:
            raise self._not_taken(f"it plays {taken}")

    def trigger(self) -> None:
        """Play the record once. Does not wait for its end."""
        self._scpi.link.write(f"{self._channels[0].source}:BTWV MTRIG".encode())
