"""Keysight M8195A arbitrary waveform generator: channel 1 with a marker, records played once for each trigger.

    INSTrument:DACMode MARKer; INST:MEM:EXT:RDIVider DIV1; TRACe1:MMODe EXTended; FREQuency:RASTer <53.76 to 65 GSa/s>
    ABORt; TRACe1:DELete:ALL; TRACe1:DEFine 1,<n>; TRACe1:DATA 1,0,#<d><bytes><int8, marker bits, int8, marker bits, ...>
    INITiate:CONTinuous 0; INIT:GATE 0; ARM:TRIGger:SOURce TRIGger; INITiate:IMMediate; TRIGger:BEGin       n in steps of 256
    volts = offset + sample / 127 * amplitude / 2                marker 1 leaves Channel 3 at the beginning of a record

It has no rate below 53.76 GSa/s in this mode, so each sample of a slower record is sent as often as it lasts: 10 MSa/s takes
10,752 bytes a sample. An edge at Trigger In and TRIGger:BEGin do the same, so `external` changes nothing. Levels are told for
50 ohm.

Source: M8195A Revision 2 User's Guide, 5.2.1 (p. 150, markers at least 128 samples apart), 6.21.1 (p. 239, tables 44 and 45,
samples and marker bits); modes, dividers, granularity of 256, at least 1280 samples, 75 mV to 1 V: pyarbtools 2025.6, which
cites p. 253; trigger commands as programs of others send them. Offsets stay inside 0.5 V, which is less than it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from drivers.links.block import header
from drivers.read_back import OUTPUT, Setting
from drivers.scpi_generator import FULL_SCALE, SOURCE_OHM, Channel, Headers, Model, OneChannelGenerator
from drivers.waveform.record import Codes, Memory
from hil.errors import ConfigError

LOWEST_HZ, HIGHEST_HZ = 53.76e9, 65e9
GRAIN, LEAST, MOST = 256, 1280, 400_000_000  # samples of a record, as it is sent
TOP = 127


class KeysightM8195A(OneChannelGenerator):
    """The generator, channel 1; arguments as of OneChannelGenerator. The constructor resets it: outputs off."""

    MODELS: ClassVar[Mapping[str, Model]] = {"M8195A": Model(HIGHEST_HZ, Memory(1, 262_144), least_vpp=75e-3)}
    headers: ClassVar[Headers] = Headers(amplitude=":VOLT{}", offset=":VOLT{}:OFFS")
    numbers: ClassVar[tuple[int, ...]] = (1,)
    open_circuit_v: ClassVar[float] = 1.0
    _times = 1  # that each sample is sent

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        return (
            Setting(OUTPUT, ":OUTP1?", "flag"),
            Setting("amplitude", ":VOLT1?", unit="Vpp", tolerance=1e-6),
            Setting("offset", ":VOLT1:OFFS?", unit="V", tolerance=1e-6),
            Setting("converter mode", ":INST:DACM?", "word"),
            Setting("divider", ":INST:MEM:EXT:RDIV?", "word"),
            Setting("memory", ":TRAC1:MMOD?", "word"),
            Setting("function", ":FUNC:MODE?", "word"),
            Setting("sample rate", ":FREQ:RAST?", unit="Sa/s"),
            Setting("continuous", ":INIT:CONT?", "flag"),
            Setting("gated", ":INIT:GATE?", "flag"),
            Setting("trigger source", ":ARM:TRIG:SOUR?", "word"),
            Setting("marker", ":OUTP3?", "flag"),
        )

    def _share(self) -> float:
        """Volts at the load for a volt that is told, which is one into 50 ohm."""
        return self._limit_v(self._load_ohm) / self._limit_v(SOURCE_OHM)

    def _swing_v(self, amplitude: float) -> float:
        return 0.5 * amplitude * self._share()

    def _offset_v(self, offset: float) -> float:
        return offset * self._share()

    def _levels(self, channel: Channel) -> tuple[str, ...]:
        """The offset is 0 while the amplitude moves."""
        amplitude, offset = channel.amplitude_vpp / self._share(), channel.offset_v / self._share()
        return ":ABOR", ":VOLT1:OFFS 0", f":VOLT1 {amplitude:.9g}", f":VOLT1:OFFS {offset:.9g}", ":VOLT3 1", ":VOLT3:OFFS 0.5"

    def _play_once(self, sample_rate_hz: float, external: bool) -> tuple[str, ...]:
        """Raises: ConfigError: a rate of which no whole multiple is a rate of the converter."""
        self._times = max(1, int(np.ceil(LOWEST_HZ / sample_rate_hz - 1e-9)))
        raster = sample_rate_hz * self._times
        if raster > HIGHEST_HZ:
            raise ConfigError(
                "no multiple of this rate is one of the generator's", where=self._called, got=f"{sample_rate_hz:g} Sa/s",
                allowed=f"{LOWEST_HZ:g} to {HIGHEST_HZ:g} Sa/s, or a whole part of it", outputs="off",
                todo="choose another symbol rate",
            )  # fmt: skip
        return (
            ":INST:DACM MARK", ":INST:MEM:EXT:RDIV DIV1", ":TRAC1:MMOD EXT", ":FUNC:MODE ARB", f":FREQ:RAST {raster:.12g}",
            ":INIT:CONT 0", ":INIT:GATE 0", ":ARM:TRIG:SOUR TRIG", ":TRIG:SOUR:ENAB TRIG", ":ARM:TRIG:SLOP POS", ":OUTP3 1",
        )  # fmt: skip

    def _told(self, channel: Channel, sample_rate_hz: float) -> Iterable[tuple[str, float | str, str]]:
        return (
            (":VOLT1?", channel.amplitude_vpp / self._share(), "Vpp"),
            (":VOLT1:OFFS?", channel.offset_v / self._share(), "V"),
            (":FREQ:RAST?", sample_rate_hz * self._times, "Sa/s"),
            (":INST:DACM?", "MARK", ""),
            (":ARM:TRIG:SOUR?", "TRIG", ""),
        )

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,); see ScpiGenerator.upload. It is filled up with its first sample, at which it rests."""
        self._check_record(codes)
        samples = len(codes) * self._times
        length = max(LEAST, -(-samples // GRAIN) * GRAIN)
        if length > MOST:
            raise ConfigError("the record is too long at this rate", where=self._called, got=f"{length} samples",
                              allowed=f"up to {MOST}", outputs="unchanged; nothing was sent",
                              todo="raise the symbol rate, or take a smaller batch")  # fmt: skip
        sent = np.zeros((length, 2), np.int8)
        shares = np.rint(codes.astype(np.float64) * (TOP / FULL_SCALE)).astype(np.int8)
        sent[:, 0] = shares[0]
        sent[:samples, 0] = np.repeat(shares, self._times)
        sent[: length // 2, 1] = 1
        link = self._scpi.link
        with link.transaction():
            self._scpi.send(":ABOR", ":TRAC1:DEL:ALL", f":TRAC1:DEF 1,{length}")
            link.write(b":TRAC1:DATA 1,0,", header(sent.nbytes), sent.reshape(-1).view(np.uint8).data)
            self._scpi.send(":TRAC1:SEL 1", ":INIT:IMM")
            errors = self._scpi.errors()
        if errors:
            raise self._not_taken("; ".join(errors))

    def trigger(self) -> None:
        """Play the record once. Does not wait for its end."""
        self._scpi.link.write(b":TRIG:BEG")
