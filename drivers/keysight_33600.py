"""Keysight 33500B and 33600A waveform generators: one channel or both, arbitrary records, triggered by the bus or an edge.

    [SOURce<n>:]DATA:VOLatile:CLEar                        volatile memory; a name cannot be used twice without it
    FORMat:BORDer SWAPped                                  little-endian int16
    [SOURce<n>:]DATA:ARBitrary:DAC <name>,#<d><bytes><int16...>     -32767 .. +32767
    [SOURce<n>:]FUNCtion:ARBitrary <name>                  then FUNCtion ARB, FUNCtion:ARBitrary:SRATe, :FILTer OFF

    volts = offset + code / 32767 * amplitude / 2          amplitude (Vpp) and offset are set once, never per record

Source: Keysight 33500B/33600A Series Operating and Service Guide, "DATA Subsystem", "FUNCtion Subsystem". The voltage between
load and ground is bounded by 5 V into 50 ohm, 10 V into an open circuit, and follows the divider 50 + R in between.
FILTer NORMal would smooth the samples, so it is OFF, which bounds the rate (data sheets 5991-0692EN, 5991-3272EN). A wrong
OUTPut:LOAD is a factor of up to 2 in volts. SYSTem:LOCK:REQuest? locks the front panel, Local key included, and keeps other
interfaces from setting anything; it is given back by SYSTem:LOCK:RELease, or when the connection ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.links.block import header
from drivers.links.link import Link
from drivers.read_back import OUTPUT, Panel, Setting, Value
from drivers.safe import OFF, Ramp, SafeState, Step, carry_out
from drivers.scpi import Expect, Identity, Scpi
from drivers.scpi_driver import ScpiOutput
from drivers.scpi_talk import OVER_VISA, ScpiTalk
from drivers.waveform.record import Codes, Memory
from hil.device import Port
from hil.errors import (
    CommandRefused,
    ConfigError,
    ContractError,
    OutOfRange,
    WrongInstrument,
)
from hil.units import Unbounded, finite

FULL_SCALE = 32767  # codes; the converter is symmetric, -32768 does not exist
OPEN_CIRCUIT_V = 10.0  # largest voltage without a load
LEAST_AMPLITUDE_VPP = 1e-3  # into 50 ohm
SOURCE_OHM = 50.0
HIGHEST_LOAD_OHM = 10_000.0  # above it only INFinity
INFINITE = 9.8e37  # at least this: SCPI's infinity is 9.9E37
NAME = "HIL"
LEVEL_SLACK = 1e-4  # of the range: the instrument answers what it has rounded
NO_ERROR = re.compile(r"[+-]?0\s*,")


@dataclass(frozen=True, slots=True)
class Model:
    """Limits of a model from its data sheet: samples/s with the filter off, record length without the memory option."""

    rate_hz: float
    memory: Memory


B = Model(62.5e6, Memory(8, 1_048_576))
A = Model(250e6, Memory(32, 4_194_304))
MODELS = {"33511B": B, "33512B": B, "33521B": B, "33522B": B, "33611A": A, "33612A": A, "33621A": A, "33622A": A}


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that is used.

    Args:
        number: 1 or 2.
        port: its limits, V.
        amplitude_vpp, offset_v: with which the limits are the ends of the converter.
        ramp: its way down before it is switched off, or None.
        tail: of the names of its settings; "" of the first.
    """

    number: int
    port: Port
    amplitude_vpp: float
    offset_v: float
    ramp: Ramp | None
    tail: str = ""

    @property
    def source(self) -> str:
        """Header of its SOURce subsystem."""
        return f":SOUR{self.number}"

    @property
    def output(self) -> str:
        """Header of its output relay."""
        return f":OUTP{self.number}"


class Keysight33600(ScpiOutput):
    """The generator, with one channel in use, or both. The constructor resets it: outputs off, volatile memory empty.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        channel: 1 or 2.
        channels: both, in the order in which they are counted; they play at one trigger. Empty: `channel` alone.
        load_ohm: what is connected; infinite, or "HighZ" in a file, for high impedance.
        low_v, high_v: narrower limits of the drive, V; a list: of each channel. They also set amplitude and offset, so all
            codes are used.
        dac_bits: round codes to so many bits; None leaves the rounding to the instrument.
        memory_samples: a smaller memory than the model's, or the larger one of the memory option.
        slew_v_per_s: before it is switched off, the drive goes down no faster than this; None: off at once.

    Raises:
        WrongInstrument: not one of MODELS. OutOfRange: limits wider than the instrument's. ConfigError: no such channels.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channel: int = 1,
        channels: tuple[int, ...] = (),
        load_ohm: Unbounded = 50.0,
        low_v: float | tuple[float, ...] | None = None,
        high_v: float | tuple[float, ...] | None = None,
        dac_bits: int | None = None,
        memory_samples: int | None = None,
        slew_v_per_s: float | None = None,
    ) -> None:
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi)
        numbers = tuple(channels) or (channel,)
        self._called = f"generator channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        self._load_ohm = load_ohm
        self._settings: dict[str, float | str] = {}
        self._on: bool | None = None  # the outputs; None: not known
        self._closed = False
        try:
            self._channels = _channels(numbers, self._called, load_ohm, low_v, high_v, slew_v_per_s)
            self._port = _drive(self._called, self._channels)
            self._dac_bits = _checked_bits(dac_bits)
            self.identity = self._scpi.identify()
            model = _model(self.identity)
            self._scpi.send("*RST", "*CLS")
        except BaseException:
            self._scpi.close()
            raise
        self._panel = Panel(
            self._scpi, self._called, self._held(), self._beyond, lock=":SYST:LOCK:REQ?", unlock=":SYST:LOCK:REL"
        )  # fmt: skip
        self.memory = model.memory if memory_samples is None else Memory(model.memory.least, memory_samples)
        self.highest_rate_hz = model.rate_hz

    @property
    def drive(self) -> Port:
        """Limits of what may be driven, V, of each channel where there are two."""
        return self._port

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels that are used."""
        return tuple(channel.number for channel in self._channels)

    def _held(self) -> tuple[Setting, ...]:
        """Return all settings that volts, timing and limits rest on."""
        return (
            *(setting for channel in self._channels for setting in _held_of(channel)),
            Setting("sync output", ":OUTP:SYNC?", "flag"),
            Setting("sync source", ":OUTP:SYNC:SOUR?", "word"),
            Setting("byte order", ":FORM:BORD?", "word"),
        )

    def _beyond(self, held: Mapping[str, Value]) -> str:
        """Say why the volts of a channel may be outside of its limits: they are those at the load that is really there."""
        return next(filter(None, (self._beyond_of(channel, held) for channel in self._channels)), "")

    def _beyond_of(self, channel: Channel, held: Mapping[str, Value]) -> str:
        names = (f"{name}{channel.tail}" for name in ("load", "amplitude", "offset", "unit of the amplitude"))
        load, amplitude, offset, unit = (held[name] for name in names)
        if unit != "VPP" or isinstance(load, str) or isinstance(amplitude, str) or isinstance(offset, str):
            return f"how far the drive reaches cannot be told: amplitude {amplitude} {unit}, offset {offset}, load {load}"
        factor = _limit_v(self._load_ohm) / _limit_v(_load(load))
        swing, offset, port = 0.5 * amplitude * factor, offset * factor, channel.port
        slack = LEVEL_SLACK * (port.shared_high - port.shared_low)
        if port.shared_low - slack <= offset - swing and offset + swing <= port.shared_high + slack:
            return ""
        return (
            f"the drive may reach {offset - swing:.4g} to {offset + swing:.4g} V, where {port.shared_low:g} to "
            f"{port.shared_high:g} V are allowed"
        )  # fmt: skip

    def settings(self) -> dict[str, float | str]:
        """A copy of the settings that were sent to the instrument; empty when they are not known."""
        return dict(self._settings)

    def forget(self) -> None:
        """Send all settings again next time: the instrument may have lost them (power, fault)."""
        self._settings = {}
        self._on = None

    def reset(self) -> None:
        """Switch the output off, down the ramp if there is one, verified; then send ``*RST``, whatever the instrument held.

        Raises:
            SwitchedOff: somebody else switched the output off. CommandRefused: it does not go off.
        """
        self._panel.check_output()
        self._switch_off()
        self._panel.let_in()
        self._scpi.send("*RST", "*CLS")

    def prepare(self, sample_rate_hz: float, external: bool = False) -> None:
        """Set everything but the records, outputs off; sends nothing if it is set already.

        Args:
            sample_rate_hz: of all channels.
            external: play when a rising edge comes to EXT TRIG, not at `trigger`.

        Raises:
            ConfigError: a sample rate that the model does not have. CommandRefused: the instrument complains.
            SwitchedOff: somebody else switched the output off.
        """
        if not 1e-6 <= sample_rate_hz <= self.highest_rate_hz:
            raise ConfigError(
                "the generator has no such sample rate",
                where=self._called,
                got=f"{sample_rate_hz:g} Sa/s",
                allowed=f"up to {self.highest_rate_hz:g} Sa/s ({self.identity.model})",
                todo="lower the symbol rate or the samples per symbol",
            )
        wanted: dict[str, float | str] = {
            "sample_rate_hz": sample_rate_hz,
            **{f"amplitude_vpp{channel.tail}": channel.amplitude_vpp for channel in self._channels},
            **{f"offset_v{channel.tail}": channel.offset_v for channel in self._channels},
            "load_ohm": self._load_ohm,
            "trigger": "EXT" if external else "BUS",
        }
        if self._settings == wanted:
            return
        self._panel.check_output()
        self.forget()
        self._panel.left(None)
        off = [f"{channel.output} 0" for channel in self._channels]
        levels = [command for channel in self._channels for command in self._levels(channel)]
        self._scpi.send("*CLS", *off, *levels, *self._play_once(sample_rate_hz, str(wanted["trigger"])))
        self._scpi.check(f"setting up {self._called}", outputs="off")
        self._verify(sample_rate_hz)
        self._settings, self._on = wanted, False
        self._panel.renewed()
        self._panel.left(False)

    def _levels(self, channel: Channel) -> tuple[str, ...]:
        """Return the commands that set the levels of a channel, each legal whatever was set before.

        No limit is set while the levels move, no offset while the amplitude does.
        """
        volts, half = f"{channel.source}:VOLT", 0.5 * channel.amplitude_vpp
        return (
            f"{channel.output}:LOAD {'INF' if math.isinf(self._load_ohm) else f'{self._load_ohm:.6g}'}",
            f"{volts}:LIM:STAT 0",
            f"{volts}:UNIT VPP",
            f"{volts}:OFFS 0",
            f"{volts} {channel.amplitude_vpp:.9g}",
            f"{volts}:OFFS {channel.offset_v:.9g}",
            f"{volts}:LIM:HIGH {channel.offset_v + half:.9g}",
            f"{volts}:LIM:LOW {channel.offset_v - half:.9g}",
            f"{volts}:LIM:STAT 1",
        )

    def _play_once(self, sample_rate_hz: float, trigger: str) -> tuple[str, ...]:
        """Arbitrary records, once for each trigger, with a SYNC pulse of the first channel for the scope."""
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
                f":TRIG{channel.number}:SOUR {trigger}",
            ]
        return (":FORM:BORD SWAP", *played, f":OUTP:SYNC:SOUR CH{self._channels[0].number}", ":OUTP:SYNC 1")

    def _verify(self, sample_rate_hz: float) -> None:
        """Verify what volts and timing rest on: a value that was rounded or ignored must not pass."""
        order = self._scpi.ask(":FORM:BORD?")
        if not order.upper().startswith("SWAP"):
            raise CommandRefused(
                "the generator did not take the byte order (:FORM:BORD)", where=self._called, got=order, allowed="SWAP",
                outputs="off", todo="every sample would be another one: update the firmware, or use another generator",
            )  # fmt: skip
        questions = [
            question
            for channel in self._channels
            for question in (
                (f"{channel.output}:LOAD?", min(self._load_ohm, INFINITE), "ohm"),
                (f"{channel.source}:VOLT?", channel.amplitude_vpp, "Vpp"),
                (f"{channel.source}:VOLT:OFFS?", channel.offset_v, "V"),
                (f"{channel.source}:FUNC:ARB:SRAT?", sample_rate_hz, "Sa/s"),
            )
        ]
        for query, wanted, unit in questions:
            found = min(self._number(query), INFINITE)
            if not math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-6):
                raise CommandRefused(
                    f"the generator did not take a setting ({query})",
                    where=self._called,
                    got=f"{found:g} {unit}",
                    allowed=f"{wanted:g} {unit}",
                    outputs="off",
                    todo="choose limits and a rate that the instrument can represent",
                )

    def _number(self, query: str) -> float:
        """An infinite load is answered with 9.9E37, which is no reading anywhere else."""
        if not query.endswith("LOAD?"):
            return self._scpi.ask_float(query)
        reply = self._scpi.ask(query)
        try:
            return finite(reply)
        except ValueError as error:
            raise CommandRefused("the generator does not say its load", where=self._called, got=reply, outputs="off") from error

    def encode(self, volts: NDArray[np.float32], channel: int = 0) -> Codes:
        """Convert volts of any shape to codes of the same shape. The caller has checked them against `drive`.

        Args:
            volts: of one channel.
            channel: which, counted from 0.
        """
        shift, levels = 0 if self._dac_bits is None else 16 - self._dac_bits, self._channels[channel]
        per_volt = FULL_SCALE / (0.5 * levels.amplitude_vpp) / (1 << shift)
        scaled = np.multiply(volts, np.float32(per_volt), dtype=np.float32)
        if levels.offset_v:
            scaled -= np.float32(levels.offset_v * per_volt)
        np.rint(scaled, out=scaled)
        top = FULL_SCALE >> shift  # with fewer bits the topmost step is the last whole one below full scale
        np.clip(scaled, -top, top, out=scaled)
        codes = scaled.astype(np.int16)
        return codes if shift == 0 else np.left_shift(codes, shift, out=codes)

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,) in the volatile memory of a channel. Nothing is played until `trigger()`.

        Args:
            codes: the record.
            channel: which, counted from 0.

        Raises:
            ConfigError: a record that does not fit the memory; nothing was sent.
        """
        if not self.memory.least <= len(codes) <= self.memory.most:
            raise ConfigError(
                "the record does not fit the generator",
                where=self._called,
                got=f"{len(codes)} samples",
                allowed=f"{self.memory.least} to {self.memory.most}",
                outputs="unchanged; nothing was sent",
            )
        source, link = self._channels[channel].source, self._scpi.link
        with link.transaction():  # one round trip: the answer to the question comes after all that stands before it
            lead = f"{source}:DATA:VOL:CLE;:{source[1:]}:DATA:ARB:DAC {NAME},".encode()
            link.write(lead, header(codes.nbytes), np.ascontiguousarray(codes, dtype="<i2").data)
            reply = self._scpi.ask(f"{source}:FUNC:ARB {NAME};{source}:FUNC ARB;:SYST:ERR?")
        if not NO_ERROR.match(reply):
            self.forget()
            raise CommandRefused(
                "the generator did not take the record",
                where=f"{self._called}, {self.identity.model} {self.identity.serial}",
                got="; ".join((reply, *self._scpi.errors())),
                outputs=f"at rest, inside {self._reach}",
                todo="see that memory_samples is not above what the instrument has",
            )

    def trigger(self) -> None:
        """Play the records of all channels once. Does not wait for their end."""
        self._scpi.link.write(b"*TRG")

    def check(self, doing: str) -> None:
        """Raise CommandRefused if the error queue holds errors."""
        self._scpi.check(doing)

    def output(self, on: bool) -> None:
        """Switch the outputs, and read back that they did; sends nothing if they are so already.

        Raises:
            CommandRefused: it did not switch. SwitchedOff: somebody else switched it off.
        """
        if self._on is not on:
            self._switch(on)

    def _switch(self, on: bool) -> None:
        with self._scpi.link.transaction():  # whole: nothing may switch on after close() has begun to switch off
            self._switch_alone(on)

    def _switch_alone(self, on: bool) -> None:
        if on and self._closed:
            raise ContractError("the generator is closed", where=self._called, got="output on", outputs="being switched off")
        if on:
            self._panel.check_output()
        self._on = None
        self._panel.left(None)
        for channel in self._channels:
            if self._scpi.ask_bool(f"{channel.output} {int(on)};{channel.output}?") is not on:
                raise CommandRefused(
                    f"the output did not switch {'on' if on else 'off'}", where=self._called, outputs="unknown",
                    todo="look at it",
                )  # fmt: skip
        self._on = on
        self._panel.left(on)

    def safe_state(self) -> SafeState:
        """Describe the safe state: outputs off, after the ramps if there are any, of the identified instrument."""
        who = self.identity
        steps = tuple(Step(f"{channel.output} 0", f"{channel.output}?", OFF) for channel in self._channels)
        first, *more = (channel.ramp for channel in self._channels)
        return SafeState(
            "awg", self._scpi.link.name, OVER_VISA, Expect(who.maker, who.model, who.serial), steps, first,
            f"unknown; if the instrument still runs, between {self._reach.replace(' to ', ' and ')}",
            ramps=tuple(ramp for ramp in more if ramp is not None),
        )  # fmt: skip

    @property
    def _reach(self) -> str:
        """The limits of all channels together, for messages."""
        lows, highs = zip(*((channel.port.shared_low, channel.port.shared_high) for channel in self._channels), strict=True)
        return f"{min(lows):g} to {max(highs):g} V"

    def _switch_off(self) -> None:
        with self._scpi.link.transaction():  # whole: nobody may switch on in between
            self.forget()
            self._panel.left(None)
            carry_out(self.safe_state(), ScpiTalk(self._scpi))
            self._on = False
            self._panel.left(False)


def _held_of(channel: Channel) -> tuple[Setting, ...]:
    source, output, n, tail = channel.source, channel.output, channel.number, channel.tail
    return (
        Setting(f"{OUTPUT}{tail}", f"{output}?", "flag"),
        Setting(f"polarity{tail}", f"{output}:POL?", "word"),
        Setting(f"load{tail}", f"{output}:LOAD?", unit="ohm"),
        Setting(f"unit of the amplitude{tail}", f"{source}:VOLT:UNIT?", "word"),
        Setting(f"amplitude{tail}", f"{source}:VOLT?", unit="Vpp", tolerance=1e-6),
        Setting(f"offset{tail}", f"{source}:VOLT:OFFS?", unit="V", tolerance=1e-6),
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


def _channels(
    numbers: tuple[int, ...], called: str, load_ohm: float, low_v: float | tuple[float, ...] | None,
    high_v: float | tuple[float, ...] | None, slew_v_per_s: float | None,
) -> tuple[Channel, ...]:  # fmt: skip
    """Raises: ConfigError: no such channels, or limits of others. OutOfRange: limits wider than the instrument's."""
    if not set(numbers) <= {1, 2} or len(set(numbers)) < len(numbers):
        raise ConfigError("the generator has no such channels", where=called, got=", ".join(map(str, numbers)),
                          allowed="1, 2, each once", outputs="unchanged; nothing was sent")  # fmt: skip
    lows, highs = (_each(name, limit, len(numbers), called) for name, limit in (("low_v", low_v), ("high_v", high_v)))
    found: list[Channel] = []
    for number, low, high in zip(numbers, lows, highs, strict=True):
        port, volts = _port(f"generator channel {number}", load_ohm, low, high), f":SOUR{number}:VOLT"
        levels, ends = _full_scale(port, load_ohm), (port.shared_low, port.shared_high)
        ramp = None
        if slew_v_per_s is not None:
            ramp = Ramp(f":OUTP{number}", volts, f"{volts}:OFFS", slew_v_per_s, _least_vpp(load_ohm), *ends)
        found.append(Channel(number, port, *levels, ramp, f" {number}" if found else ""))
    return tuple(found)


def _each(name: str, limit: float | tuple[float, ...] | None, count: int, called: str) -> tuple[float | None, ...]:
    """A limit for each channel. Raises: ConfigError: of another number of channels."""
    if not isinstance(limit, tuple | list):
        return (limit,) * count
    if len(limit) != count:
        raise ConfigError("a limit for each channel, or one for all", where=called, got=f"{name} of {len(limit)} numbers",
                          allowed=f"{count}", outputs="unchanged; nothing was sent")  # fmt: skip
    return tuple(limit)


def _drive(called: str, channels: tuple[Channel, ...]) -> Port:
    """The port of all channels."""
    if len(channels) == 1:
        return channels[0].port
    lows, highs = zip(*((channel.port.shared_low, channel.port.shared_high) for channel in channels), strict=True)
    return Port(called, tuple(lows), tuple(highs), "V", len(channels))


def _port(name: str, load_ohm: float, low_v: float | None, high_v: float | None) -> Port:
    if not (1.0 <= load_ohm <= HIGHEST_LOAD_OHM or load_ohm == math.inf):
        raise ConfigError("the generator has no such load", where=name, got=f"{load_ohm}", allowed="1 to 10000, or inf")
    limit = _limit_v(load_ohm)
    widest = Port(name, -limit, limit, "V")
    return widest.narrowed(-limit if low_v is None else low_v, limit if high_v is None else high_v)


def _limit_v(load_ohm: float) -> float:
    return OPEN_CIRCUIT_V if math.isinf(load_ohm) else OPEN_CIRCUIT_V * load_ohm / (load_ohm + SOURCE_OHM)


def _load(answer_ohm: float) -> float:
    return math.inf if answer_ohm >= INFINITE else answer_ohm


def _least_vpp(load_ohm: float) -> float:
    return LEAST_AMPLITUDE_VPP * _limit_v(load_ohm) / _limit_v(50.0)


def _full_scale(port: Port, load_ohm: float) -> tuple[float, float]:
    """Amplitude (Vpp) and offset (V) so that the port's limits are the ends of the converter."""
    amplitude = port.shared_high - port.shared_low
    least = _least_vpp(load_ohm)
    if amplitude < least:
        raise OutOfRange(
            "the range is narrower than the smallest amplitude",
            where=f"port {port.name}",
            got=f"{amplitude:g} Vpp",
            allowed=f"at least {least:g} Vpp",
            outputs="unchanged; nothing was sent",
        )
    return amplitude, 0.5 * (port.shared_low + port.shared_high)


def _checked_bits(bits: int | None) -> int | None:
    if bits is not None and not 2 <= bits <= 16:
        raise ConfigError("dac_bits makes no sense", where="generator", got=f"{bits}", allowed="2 to 16")
    return bits


def _model(identity: Identity) -> Model:
    if identity.model in MODELS:
        return MODELS[identity.model]
    raise WrongInstrument(
        "this is not a generator that the driver knows",
        where="generator",
        got=f"{identity.maker} {identity.model}",
        allowed=", ".join(MODELS),
        outputs="unchanged",
        todo="correct the address in the bench file",
    )
