"""Common parts of drivers of waveform generators: channels and their limits, codes, settings, relays, the safe state.

    volts = offset + code / 32767 * amplitude / 2          amplitude (Vpp) and offset are set once, never per record

The voltage between load and ground is bounded by `open_circuit_v` without a load, and follows the divider 50 ohm + load below
that: of 10 V, 5 V into 50 ohm. What an instrument says in its own words is in
its own file: the settings that count (`_held_of`, `_held_besides`), how levels are set (`_levels`), how a record is played once
(`_play_once`), how it is sent (`upload`), and what is asked to see that it was taken (`_told`).
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from drivers.links.link import Link
from drivers.read_back import OUTPUT, Panel, Setting, Value
from drivers.safe import OFF, Ramp, SafeState, Step, carry_out
from drivers.scpi import Expect, Identity, Scpi, spoken
from drivers.scpi_driver import ScpiOutput
from drivers.scpi_talk import OVER_VISA, ScpiTalk
from drivers.waveform.record import Codes, Memory
from hil.device import Port
from hil.errors import CommandRefused, ConfigError, ContractError, OutOfRange, WrongInstrument
from hil.units import Unbounded, finite

FULL_SCALE = 32767  # codes; the converter is symmetric, -32768 is not used
OPEN_CIRCUIT_V = 10.0  # largest voltage without a load
SOURCE_OHM = 50.0
INFINITE = 9.8e37  # at least this: SCPI's infinity is 9.9E37
LEVEL_SLACK = 1e-4  # of the range: the instrument answers what it has rounded
NO_ERROR = re.compile(r"[+-]?0\s*,")
NAME = "HIL"  # of the record in the generator


@dataclass(frozen=True, slots=True)
class Model:
    """Limits of a model from its data sheet.

    Args:
        rate_hz: samples/s, nothing between them smoothed.
        memory: record length, without options.
        least_vpp: smallest amplitude into 50 ohm.
    """

    rate_hz: float
    memory: Memory
    least_vpp: float = 1e-3


@dataclass(frozen=True, slots=True)
class Headers:
    """SCPI headers of a channel, its number where "{}" stands."""

    output: str = ":OUTP{}"
    source: str = ":SOUR{}"
    amplitude: str = ":SOUR{}:VOLT"
    offset: str = ":SOUR{}:VOLT:OFFS"


SCPI = Headers()


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that is used.

    Args:
        number: 1 or 2.
        port: its limits, V.
        amplitude_vpp, offset_v: with which the limits are the ends of the converter.
        ramp: its way down before it is switched off, or None.
        tail: of the names of its settings; "" of the first.
        headers: of its settings.
    """

    number: int
    port: Port
    amplitude_vpp: float
    offset_v: float
    ramp: Ramp | None
    tail: str = ""
    headers: Headers = SCPI

    @property
    def source(self) -> str:
        """Header of its SOURce subsystem."""
        return self.headers.source.format(self.number)

    @property
    def output(self) -> str:
        """Header of its output relay."""
        return self.headers.output.format(self.number)


class ScpiGenerator(ScpiOutput):
    """A generator, with one channel in use, or several. The constructor resets it: outputs off.

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

    MODELS: ClassVar[Mapping[str, Model]]
    headers: ClassVar[Headers] = SCPI
    numbers: ClassVar[tuple[int, ...]] = (1, 2)  # channels that one trigger plays
    open_circuit_v: ClassVar[float] = OPEN_CIRCUIT_V
    loads_ohm: ClassVar[tuple[float, float]] = (1.0, 10_000.0)  # beyond it only INFinity
    switch: ClassVar[tuple[str, str]] = ("0", "1")  # how the relay is told
    talk: ClassVar[str] = OVER_VISA
    speaks: ClassVar[type[Scpi]] = Scpi  # the form of conversation that the instrument understands
    lock: ClassVar[tuple[str, str]] = ("", "")  # question that locks the front panel, command that unlocks it
    beginning: ClassVar[tuple[str, ...]] = ("*RST", "*CLS")  # that bring it to a known state

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
        self._scpi = spoken(scpi, self.speaks)
        numbers = tuple(channels) or (channel,)
        self._called = f"generator channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        self._load_ohm = load_ohm
        self._settings: dict[str, float | str] = {}
        self._on: bool | None = None  # the outputs; None: not known
        self._closed = False
        try:
            self._check_link()
            self._channels = self._made(numbers, low_v, high_v, slew_v_per_s)
            self._port = _drive(self._called, self._channels)
            self._dac_bits = _checked_bits(dac_bits)
            self.identity = self._scpi.identify()
            model = self._model(self.identity)
            self._scpi.send(*self.beginning)
        except BaseException:
            self._scpi.close()
            raise
        held = (*(setting for one in self._channels for setting in self._held_of(one)), *self._held_besides())
        self._panel = Panel(self._scpi, self._called, held, self._beyond, lock=self.lock[0], unlock=self.lock[1])
        self.memory = model.memory if memory_samples is None else Memory(model.memory.least, memory_samples, model.memory.step)
        self.highest_rate_hz = model.rate_hz

    # What an instrument says in its own words.

    def _check_link(self) -> None:
        """Raises: ConfigError: a wire that the driver does not support. Nothing was sent."""

    @abstractmethod
    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        """All settings of a channel that volts, timing and limits rest on; see `held_levels` for their names."""

    def _held_besides(self) -> tuple[Setting, ...]:
        """Settings of the instrument as a whole that count."""
        return ()

    @abstractmethod
    def _levels(self, channel: Channel) -> tuple[str, ...]:
        """Return the commands that set the levels of a channel, each legal whatever was set before."""

    @abstractmethod
    def _play_once(self, sample_rate_hz: float, external: bool) -> tuple[str, ...]:
        """Return the commands for records that are played once for each trigger, with an edge for the scope at their beginning.

        Args:
            sample_rate_hz: of all channels.
            external: at an edge that comes, not at `trigger`.
        """

    @abstractmethod
    def _told(self, channel: Channel, sample_rate_hz: float) -> Iterable[tuple[str, float | str, str]]:
        """Return questions, the answers that they must have, and units: what was rounded or ignored must not pass."""

    @abstractmethod
    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,) of a channel. Nothing is played until `trigger()`.

        Args:
            codes: the record.
            channel: which, counted from 0.

        Raises:
            ConfigError: a record that does not fit the memory; nothing was sent. CommandRefused: it was not taken.
        """

    @abstractmethod
    def trigger(self) -> None:
        """Play the records of all channels once. Does not wait for their end."""

    # What all generators do.

    @property
    def drive(self) -> Port:
        """Limits of what may be driven, V, of each channel where there are two."""
        return self._port

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels that are used."""
        return tuple(channel.number for channel in self._channels)

    def _beyond(self, held: Mapping[str, Value]) -> str:
        """Say why the volts of a channel may be outside of its limits: they are those at the load that is really there."""
        return next(filter(None, (self._beyond_of(channel, held) for channel in self._channels)), "")

    def _beyond_of(self, channel: Channel, held: Mapping[str, Value]) -> str:
        tail = channel.tail
        load, unit = held.get(f"load{tail}", self._load_ohm), held.get(f"unit of the amplitude{tail}", "VPP")
        amplitude, offset = (held.get(f"{name}{tail}", "not told") for name in ("amplitude", "offset"))
        if unit != "VPP" or isinstance(load, str) or isinstance(amplitude, str) or isinstance(offset, str):
            return f"how far the drive reaches cannot be told: amplitude {amplitude} {unit}, offset {offset}, load {load}"
        factor = self._limit_v(self._load_ohm) / self._limit_v(_load(load))
        swing, offset, port = self._swing_v(amplitude) * factor, self._offset_v(offset) * factor, channel.port
        slack = LEVEL_SLACK * (port.shared_high - port.shared_low)
        if port.shared_low - slack <= offset - swing and offset + swing <= port.shared_high + slack:
            return ""
        return (
            f"the drive may reach {offset - swing:.4g} to {offset + swing:.4g} V, where {port.shared_low:g} to "
            f"{port.shared_high:g} V are allowed"
        )  # fmt: skip

    def _swing_v(self, amplitude: float) -> float:
        """What an amplitude, as the instrument tells it, moves the output to either side, V."""
        return 0.5 * amplitude

    def _offset_v(self, offset: float) -> float:
        """What an offset, as the instrument tells it, is in V."""
        return offset

    def _limit_v(self, load_ohm: float) -> float:
        """Largest voltage into a load, V."""
        return self.open_circuit_v * (1.0 if math.isinf(load_ohm) else load_ohm / (load_ohm + SOURCE_OHM))

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
        self._scpi.send(*self.beginning)

    def prepare(self, sample_rate_hz: float, external: bool = False) -> None:
        """Set everything but the records, outputs off; sends nothing if it is set already.

        Args:
            sample_rate_hz: of all channels.
            external: play when a rising edge comes to the trigger input, not at `trigger`.

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
        off = [f"{channel.output} {self.switch[False]}" for channel in self._channels]
        levels = [command for channel in self._channels for command in self._levels(channel)]
        self._scpi.send(*self.beginning[1:], *off, *levels, *self._play_once(sample_rate_hz, external))
        self._scpi.check(f"setting up {self._called}", outputs="off")
        self._verify(sample_rate_hz)
        self._settings, self._on = wanted, False
        self._panel.renewed()
        self._panel.left(False)

    def _verify(self, sample_rate_hz: float) -> None:
        """Verify what volts and timing rest on: a value that was rounded or ignored must not pass."""
        for channel in self._channels:
            for query, wanted, unit in self._told(channel, sample_rate_hz):
                self._same(query, wanted, unit)

    def _same(self, query: str, wanted: float | str, unit: str) -> None:
        if isinstance(wanted, str):
            found: float | str = self._scpi.ask(query).upper()
            same = found == wanted
        else:
            found = min(self._number(query), INFINITE)
            same = math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-6)
        if not same:
            raise CommandRefused(
                f"the generator did not take a setting ({query})",
                where=self._called,
                got=found if isinstance(found, str) else f"{found:g} {unit}",
                allowed=wanted if isinstance(wanted, str) else f"{wanted:g} {unit}",
                outputs="off",
                todo="choose limits and a rate that the instrument can represent",
            )

    def _number(self, query: str) -> float:
        """An infinite load is answered with 9.9E37, which is no reading anywhere else."""
        if not query.endswith(("LOAD?", "IMP?")):
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

    def _check_record(self, codes: Codes) -> None:
        """Raises: ConfigError: a record that does not fit the memory; nothing was sent."""
        memory = self.memory
        if not memory.least <= len(codes) <= memory.most or len(codes) % memory.step:
            raise ConfigError(
                "the record does not fit the generator",
                where=self._called,
                got=f"{len(codes)} samples",
                allowed=f"{memory.least} to {memory.most}" + (f", multiples of {memory.step}" if memory.step > 1 else ""),
                outputs="unchanged; nothing was sent",
            )

    def _not_taken(
        self, got: str, todo: str = "see that memory_samples is not above what the instrument has"
    ) -> CommandRefused:
        """The error of a record that the instrument does not have; everything is sent again afterwards."""
        self.forget()
        return CommandRefused(
            "the generator did not take the record",
            where=f"{self._called}, {self.identity.model} {self.identity.serial}",
            got=got,
            outputs=f"at rest, inside {self._reach}",
            todo="see that memory_samples is not above what the instrument has",
        )

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
            if self._scpi.ask_bool(f"{channel.output} {self.switch[on]};{channel.output}?") is not on:
                raise CommandRefused(
                    f"the output did not switch {'on' if on else 'off'}", where=self._called, outputs="unknown",
                    todo="look at it",
                )  # fmt: skip
        self._on = on
        self._panel.left(on)

    def safe_state(self) -> SafeState:
        """Describe the safe state: outputs off, after the ramps if there are any, of the identified instrument."""
        who, off = self.identity, self.switch[False]
        steps = tuple(Step(f"{channel.output} {off}", f"{channel.output}?", OFF) for channel in self._channels)
        first, *more = (channel.ramp for channel in self._channels)
        return SafeState(
            "awg", self._scpi.link.name, self.talk, Expect(who.maker, who.model, who.serial), steps, first,
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

    # Channels and models.

    def _made(
        self, numbers: tuple[int, ...], low_v: float | tuple[float, ...] | None, high_v: float | tuple[float, ...] | None,
        slew_v_per_s: float | None,
    ) -> tuple[Channel, ...]:  # fmt: skip
        """Raises: ConfigError: no such channels, or limits of others. OutOfRange: limits wider than the instrument's."""
        called, h = self._called, self.headers
        if not set(numbers) <= set(self.numbers) or len(set(numbers)) < len(numbers):
            raise ConfigError("the generator has no such channels", where=called, got=", ".join(map(str, numbers)),
                              allowed=f"{', '.join(map(str, self.numbers))}, each once",
                              outputs="unchanged; nothing was sent")  # fmt: skip
        lows, highs = (_each(name, limit, len(numbers), called) for name, limit in (("low_v", low_v), ("high_v", high_v)))
        found: list[Channel] = []
        for number, low, high in zip(numbers, lows, highs, strict=True):
            port, least = self._bounds(f"generator channel {number}", low, high), self._least_vpp()
            levels, ends = _full_scale(port, least), (port.shared_low, port.shared_high)
            ramp = None
            if slew_v_per_s is not None:
                output, amplitude, offset = (header.format(number) for header in (h.output, h.amplitude, h.offset))
                ramp = Ramp(output, amplitude, offset, slew_v_per_s, least, *ends)
            found.append(Channel(number, port, *levels, ramp, f" {number}" if found else "", h))
        return tuple(found)

    def _bounds(self, name: str, low_v: float | None, high_v: float | None) -> Port:
        lowest, highest = self.loads_ohm
        if not (lowest <= self._load_ohm <= highest or self._load_ohm == math.inf):
            raise ConfigError("the generator has no such load", where=name, got=f"{self._load_ohm}",
                              allowed=f"{lowest:.6g} to {highest:.6g}, or inf")  # fmt: skip
        limit = self._limit_v(self._load_ohm)
        widest = Port(name, -limit, limit, "V")
        return widest.narrowed(-limit if low_v is None else low_v, limit if high_v is None else high_v)

    def _least_vpp(self) -> float:
        least = max(model.least_vpp for model in self.MODELS.values())
        return least * self._limit_v(self._load_ohm) / self._limit_v(SOURCE_OHM)

    def _model(self, identity: Identity) -> Model:
        if identity.model in self.MODELS:
            return self.MODELS[identity.model]
        raise WrongInstrument(
            "this is not a generator that the driver knows",
            where="generator",
            got=f"{identity.maker} {identity.model}",
            allowed=", ".join(self.MODELS),
            outputs="unchanged",
            todo="correct the address in the bench file",
        )


class OneChannelGenerator(ScpiGenerator):
    """A generator whose channels cannot play at one trigger, so one is in use.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        channel: 1 or 2.
        load_ohm: what is connected; infinite, or "HighZ" in a file, for high impedance.
        low_v, high_v: narrower limits of the drive, V. They also set amplitude and offset, so all codes are used.
        dac_bits: round codes to so many bits; None leaves the rounding to the instrument.
        memory_samples: a smaller memory than the model's, or the larger one of a memory option.
        slew_v_per_s: before it is switched off, the drive goes down no faster than this; None: off at once.

    Raises:
        WrongInstrument: not one of MODELS. OutOfRange: limits wider than the instrument's. ConfigError: no such channel.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channel: int = 1,
        load_ohm: Unbounded = 50.0,
        low_v: float | None = None,
        high_v: float | None = None,
        dac_bits: int | None = None,
        memory_samples: int | None = None,
        slew_v_per_s: float | None = None,
    ) -> None:
        super().__init__(
            scpi, channel=channel, load_ohm=load_ohm, low_v=low_v, high_v=high_v, dac_bits=dac_bits,
            memory_samples=memory_samples, slew_v_per_s=slew_v_per_s,
        )  # fmt: skip


def load_text(load_ohm: float, infinite: str = "INF") -> str:
    """Write a load as a parameter."""
    return infinite if math.isinf(load_ohm) else f"{load_ohm:.6g}"


def held_levels(channel: Channel, load: str) -> tuple[Setting, ...]:
    """The settings of a channel that every generator has: relay, load, amplitude, offset. `load`: header of the load."""
    h, n, tail = channel.headers, channel.number, channel.tail
    return (
        Setting(f"{OUTPUT}{tail}", f"{channel.output}?", "flag"),
        Setting(f"load{tail}", f"{load}?", unit="ohm"),
        Setting(f"amplitude{tail}", f"{h.amplitude.format(n)}?", unit="Vpp", tolerance=1e-6),
        Setting(f"offset{tail}", f"{h.offset.format(n)}?", unit="V", tolerance=1e-6),
    )


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


def _load(answer_ohm: float) -> float:
    return math.inf if answer_ohm >= INFINITE else answer_ohm


def _full_scale(port: Port, least_vpp: float) -> tuple[float, float]:
    """Amplitude (Vpp) and offset (V) so that the port's limits are the ends of the converter."""
    amplitude = port.shared_high - port.shared_low
    if amplitude < least_vpp:
        raise OutOfRange(
            "the range is narrower than the smallest amplitude",
            where=f"port {port.name}",
            got=f"{amplitude:g} Vpp",
            allowed=f"at least {least_vpp:g} Vpp",
            outputs="unchanged; nothing was sent",
        )
    return amplitude, 0.5 * (port.shared_low + port.shared_high)


def _checked_bits(bits: int | None) -> int | None:
    if bits is not None and not 2 <= bits <= 16:
        raise ConfigError("dac_bits makes no sense", where="generator", got=f"{bits}", allowed="2 to 16")
    return bits
