"""Keysight InfiniiVision oscilloscopes (2000X, 3000T, 4000X, 1200): channels triggered from outside, read as raw words.

    :WAVeform:FORMat WORD; BYTeorder LSBFirst; UNSigned 1; POINts:MODE RAW; POINts <n>
    :WAVeform:PREamble?  format,type,points,count,xincrement,xorigin,xreference,yincrement,yorigin,yreference
    :WAVeform:DATA?      #8<8 digits><uint16...>

    volts = (word - yreference) yincrement + yorigin        seconds after the trigger = (i - xreference) xincrement + xorigin

Words with a meaning of their own: 0 a hole (nothing was acquired), 1 clipped low, 0xFFFF clipped high. Preamble numbers of
9.9E37 mean that there is no measurement. :SYSTem:LOCK locks the front panel. Channels 1 and 2, and 3 and 4, share a converter
and its memory: both of a pair on halve rate and record length (data sheets, "Maximum sample rate": half channel, all channels).

Source: Keysight InfiniiVision 4000 X-Series Programmer's Guide, ":WAVeform Commands", ":ACQuire Commands", ":AER", and
"Synchronizing Acquisitions" (SINGle, wait for AER 1, trigger, wait until the Run bit of OPERegister:CONDition falls).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from drivers.links.link import Link
from drivers.read_back import Panel, Setting
from drivers.scpi import Identity, Scpi, reading
from drivers.scpi_driver import ScpiDriver
from drivers.waveform.record import Axis, Memory, Record, Scale, Words
from hil.device import Port
from hil.errors import (
    Changed,
    CommandRefused,
    ConfigError,
    HilError,
    InstrumentError,
    MissedTrigger,
    NotAReading,
    Saturated,
    WrongInstrument,
)

HOLE, CLIPPED_LOW, CLIPPED_HIGH = 0, 1, 0xFFFF
SENTINEL = 9.8e37  # anything at least this large stands for "no measurement"
RUNNING = 1 << 3  # of OPERegister:CONDition
INPUTS = {50.0: "FIFT", 1e6: "ONEM"}  # ohm
WORD = 1  # format in the preamble
HIGHEST_V = 1e6  # beyond what any probe can divide
RANGE, POSITION = "time range", "time position"
VERIFY_EVERY = 256  # records between two looks at the preamble: somebody may turn a knob


@dataclass(frozen=True, slots=True)
class Model:
    """Samples/s with one channel on, and the longest record that can be read."""

    rate_hz: float
    memory: Memory


MODELS = {
    "DSOX1": Model(2e9, Memory(100, 1_000_000)),
    "DSOX2": Model(2e9, Memory(100, 1_000_000)),
    "DSOX3": Model(5e9, Memory(100, 4_000_000)),
    "DSOX4": Model(5e9, Memory(100, 4_000_000)),
    "MSOX2": Model(2e9, Memory(100, 1_000_000)),
    "MSOX3": Model(5e9, Memory(100, 4_000_000)),
    "MSOX4": Model(5e9, Memory(100, 4_000_000)),
}


@dataclass(slots=True)
class Channel:
    """A channel that is used, and what is known of its records.

    Args:
        number: 1 to 4.
        port: its screen, V.
        range_v, offset_v: of the screen.
        name: for people.
        tail: of the names of its settings; "" of the first.
        preamble, scale, axis, points: of its records, when they are known.
        upright: scale of the first record since everything was set: no setting of a record moves it.
        until_verified: records until the preamble is looked at again.
    """

    number: int
    port: Port
    range_v: float
    offset_v: float
    name: str
    tail: str = ""
    preamble: str | None = None
    upright: Scale | None = None
    points: int = 0
    scale: Scale = field(default_factory=lambda: Scale(1.0, 0.0, 0.0))
    axis: Axis = field(default_factory=lambda: Axis(0.0, 1.0))
    until_verified: int = 0

    @property
    def header(self) -> str:
        """Header of its subsystem."""
        return f":CHAN{self.number}"


class InfiniiVision(ScpiDriver):
    """The scope, with one channel in use, or several that one trigger records. The constructor resets it.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        channel: 1 to 4.
        channels: several, in the order in which they are counted. Empty: `channel` alone.
        range_v: full scale, all eight divisions; a list: of each channel.
        offset_v: voltage at the middle of the screen; a list: of each channel.
        input_ohm: 50 or 1e6.
        trigger_v: level of the external trigger.
        memory_samples: another memory than the model's; none: the model's.
        clock: seconds from any origin; deadlines are measured by it.

    Raises:
        WrongInstrument: not one of MODELS. ConfigError: an input that the scope does not have.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channel: int = 1,
        channels: tuple[int, ...] = (),
        range_v: float | tuple[float, ...] = 1.0,
        offset_v: float | tuple[float, ...] = 0.0,
        input_ohm: float = 1e6,
        trigger_v: float = 0.5,
        memory_samples: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi)
        numbers = tuple(channels) or (channel,)
        self._name = f"scope channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        self._trigger_v, self._clock = trigger_v, clock
        self._shape: tuple[int, float, float] | None = None  # what the instrument is configured for, if that is known
        self._closed = False
        try:
            self._channels = _channels(numbers, range_v, offset_v, self._name)
            self._port = _screen(self._name, self._channels)
            self._input = _input(input_ohm, self._name)
            self.identity = self._scpi.identify()
            model = _model(self.identity)
            self._scpi.send("*RST", "*CLS")
        except BaseException:
            self._scpi.close()
            raise
        self._panel = Panel(self._scpi, self._name, self._held(), lock=":SYST:LOCK 1;:SYST:LOCK?", unlock=":SYST:LOCK 0")
        if len({(number - 1) // 2 for number in numbers}) < len(numbers):
            model = Model(model.rate_hz / 2, replace(model.memory, most=model.memory.most // 2))
        self.memory = model.memory if memory_samples is None else Memory(model.memory.least, memory_samples)
        self.highest_rate_hz, self._most = model.rate_hz, model.memory.most

    @property
    def reading(self) -> Port:
        """The screen: what can be read without clipping, V, of each channel where there are several."""
        return self._port

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels that are used."""
        return tuple(channel.number for channel in self._channels)

    def _held(self) -> tuple[Setting, ...]:
        """Return all settings that volts and times of a record rest on."""
        source = (Setting("source of the words", ":WAV:SOUR?", "word"),) if len(self._channels) == 1 else ()
        return (
            *(setting for channel in self._channels for setting in _held_of(channel)),
            Setting("trigger mode", ":TRIG:MODE?", "word"),
            Setting("trigger source", ":TRIG:EDGE:SOUR?", "word"),
            Setting("trigger level", ":TRIG:EDGE:LEV?", unit="V", tolerance=1e-6),
            Setting("trigger slope", ":TRIG:EDGE:SLOP?", "word"),
            Setting("trigger sweep", ":TRIG:SWE?", "word"),
            Setting("acquisition", ":ACQ:TYPE?", "word"),
            Setting("time mode", ":TIM:MODE?", "word"),
            Setting("time reference", ":TIM:REF?", "word"),
            Setting(RANGE, ":TIM:RANG?", unit="s"),
            Setting(POSITION, ":TIM:POS?", unit="s", tolerance=1e-13),
            *source,
            Setting("format", ":WAV:FORM?", "word"),
            Setting("byte order", ":WAV:BYT?", "word"),
            Setting("sign of the words", ":WAV:UNS?", "flag"),
        )

    def reset(self) -> None:
        """Send ``*RST``, whatever the instrument held. A scope drives nothing."""
        self.forget()
        self._panel.let_in()
        self._scpi.send("*RST", "*CLS")

    def finer(self, rate_hz: float, most: int) -> int:
        """The largest multiple of `rate_hz`, up to `most`, that the sampling clock divides down to; 1 if there is none."""
        ratios = ((multiple, self.highest_rate_hz / (rate_hz * multiple)) for multiple in range(most, 0, -1))
        return next((multiple for multiple, ratio in ratios if ratio >= 1 and math.isclose(ratio, round(ratio))), 1)

    def forget(self) -> None:
        """Send all settings again next time: the instrument may have lost them (power, fault)."""
        self._shape = None
        self._unread()

    def _unread(self) -> None:
        """Forget the state of the records: nothing is known of them."""
        for channel in self._channels:
            channel.preamble = None

    def configure(self, samples: int, rate_hz: float, start_s: float) -> None:
        """Record `samples` at `rate_hz`, the first `start_s` after the trigger; sends nothing if it is set already.

        A scope that has not this rate takes a higher one: the record's own axis says which.

        Raises:
            ConfigError: more samples, or faster ones, than the model has. CommandRefused: the instrument complains.
        """
        if self._shape == (samples, rate_hz, start_s):
            return
        if samples > self.memory.most or not 0 < rate_hz <= self.highest_rate_hz:
            raise ConfigError(
                "the scope cannot record this",
                where=self._name,
                got=f"{samples} samples at {rate_hz:g} Sa/s",
                allowed=f"up to {self.memory.most} at up to {self.highest_rate_hz:g} Sa/s ({self.identity.model})",
                todo="lower the symbol rate or the samples per symbol",
            )
        known, self._shape = self._shape is not None, None
        self._unread()
        if not known:
            self._set_up()
            self._panel.renewed()
        self._set_time(samples, rate_hz, start_s)
        self._scpi.check(f"setting up {self._name}")
        self._shape = (samples, rate_hz, start_s)
        self._panel.renewed(self._shape, (RANGE, POSITION))

    def _set_up(self) -> None:
        """Set everything that stays the same between records."""
        self._scpi.send("*CLS", ":STOP")
        if all(channel.number != 1 for channel in self._channels):
            self._scpi.send(":CHAN1:DISP 0")  # *RST shows it, and a channel that is on may halve the rate of another
        for channel in self._channels:
            channel.upright, header = None, channel.header
            self._scpi.send(f"{header}:DISP 1", f"{header}:COUP DC", f"{header}:IMP {self._input}", f"{header}:PROB 1",
                            f"{header}:RANG {channel.range_v:.6g}", f"{header}:OFFS {channel.offset_v:.6g}")  # fmt: skip
        self._scpi.send(":TRIG:MODE EDGE", ":TRIG:EDGE:SOUR EXT", f":TRIG:EDGE:LEV {self._trigger_v:.6g}",
                        ":TRIG:EDGE:SLOP POS", ":TRIG:SWE NORM", ":ACQ:TYPE NORM")  # fmt: skip
        self._scpi.send(
            f":WAV:SOUR CHAN{self._channels[0].number}", ":WAV:FORM WORD", ":WAV:BYT LSBF", ":WAV:UNS 1", ":WAV:POIN:MODE RAW"
        )
        order, _, unsigned = self._scpi.ask(":WAV:BYT?;:WAV:UNS?").partition(";")
        if not (order.upper().startswith("LSBF") and unsigned.lstrip("+") == "1"):
            raise CommandRefused(
                "the scope did not take the order or sign of its words", where=self._name, got=f"{order}, unsigned {unsigned}",
                allowed="LSBF, unsigned 1", outputs="inside their limits",
                todo="every sample would be another one: update the firmware, or use another scope",
            )  # fmt: skip

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        """The record fills the screen; the position is the time of the middle of the screen after the trigger."""
        span_s = samples / rate_hz
        middle_s = start_s + 0.5 * span_s
        self._scpi.send(":TIM:MODE MAIN", ":TIM:REF CENT", f":TIM:RANG {span_s:.12g}", f":TIM:POS {middle_s:.12g}",
                        f":WAV:POIN {samples}")  # fmt: skip

    def arm(self) -> None:
        """Wait for one trigger. Returns when the scope is ready for it, so that no trigger can come too early.

        Raises:
            InstrumentError: it does not get ready within a second.
        """
        armed = self._scpi.ask_int(":SING;:AER?")
        deadline = self._clock() + 1.0
        while not armed:
            if self._clock() > deadline:
                raise InstrumentError("the scope did not arm within 1 s", where=self._name, got="arm event register 0")
            armed = self._scpi.ask_int(":AER?")

    def wait(self, timeout_s: float) -> None:
        """Wait until the record is complete.

        Raises:
            MissedTrigger: it is not after `timeout_s`; the scope was stopped.
        """
        deadline = self._clock() + timeout_s
        while self._scpi.ask_int(":OPER:COND?") & RUNNING:
            if self._clock() > deadline:
                self._scpi.send(":STOP")
                raise MissedTrigger(
                    "no trigger arrived",
                    where=self._name,
                    got=f"still waiting after {timeout_s:g} s",
                    allowed="a rising edge at the external trigger input",
                    outputs="inside their limits",
                    todo="connect the generator's SYNC output to the scope's EXT TRIG, or look at the trigger level",
                )

    def read(self, channel: int = 0) -> Record:
        """The record that a channel has acquired, checked.

        Args:
            channel: which, counted from 0.

        Raises:
            NotAReading: holes, or 9.9E37 in the preamble. Saturated: words at a rail.
            InstrumentError: the record has another shape than configured, or a setting was changed by somebody.
        """
        if self._shape is None:
            raise InstrumentError("read before configure", where=self._name)
        one = self._channels[channel]
        source = "" if len(self._channels) == 1 else f":WAV:SOUR CHAN{one.number};"
        if one.preamble is None or one.until_verified == 0:
            self._read_preamble(self._shape, one, source)
        one.until_verified -= 1
        words: Words = self._scpi.ask_block(f"{source}:WAV:DATA?", "<u2", one.points)
        self._check(words, one)
        return Record(words, one.scale, one.axis)

    def _read_preamble(self, shape: tuple[int, float, float], one: Channel, source: str) -> None:
        text = self._scpi.ask(f"{source}:WAV:PRE?")
        if one.preamble is not None and text != one.preamble:
            before = one.preamble
            self.forget()
            raise _turned(one.name, text, before)
        one.points, one.scale, one.axis = _parse(text, shape, max(self.memory.most, self._most), one.name)
        if one.upright is not None and not _same(one.upright, one.scale):
            old, one.upright = one.upright, None
            self.forget()
            raise _turned(one.name, _scaled(one.scale), _scaled(old))
        one.upright = one.scale
        one.preamble, one.until_verified = text, VERIFY_EVERY

    def _check(self, words: Words, one: Channel) -> None:
        low, high = int(words.min()), int(words.max())
        if low == HOLE:
            raise NotAReading(
                "the record has holes",
                where=one.name,
                got=f"{int((words == HOLE).sum())} of {len(words)} samples not acquired",
                allowed="none",
                outputs="inside their limits",
                todo="repeat the shot",
            )
        if low <= CLIPPED_LOW or high >= CLIPPED_HIGH:
            clipped = int((words <= CLIPPED_LOW).sum() + (words >= CLIPPED_HIGH).sum())
            raise Saturated(
                "the input was beyond the screen",
                where=one.name,
                got=f"{clipped} of {len(words)} samples clipped",
                allowed=f"{one.port.shared_low:g} to {one.port.shared_high:g} V",
                outputs="inside their limits",
                todo="increase range_v, or move offset_v",
            )

    def check(self, doing: str) -> None:
        """Raise CommandRefused if the error queue holds errors."""
        self._scpi.check(doing)

    def close(self) -> None:
        """Stop, and close the link; the second call does nothing. A scope drives nothing, so a dead link is no danger."""
        if self._closed:
            return
        self._closed = True
        try:
            self._scpi.send(":STOP")
            self._panel.let_in()
        except HilError:
            self._shape = None
        finally:
            self._scpi.close()


def _held_of(channel: Channel) -> tuple[Setting, ...]:
    header, tail = channel.header, channel.tail
    return (
        Setting(f"range{tail}", f"{header}:RANG?", unit="V"),
        Setting(f"offset{tail}", f"{header}:OFFS?", unit="V", tolerance=1e-6),
        Setting(f"display of the channel{tail}", f"{header}:DISP?", "flag"),
        Setting(f"coupling{tail}", f"{header}:COUP?", "word"),
        Setting(f"impedance{tail}", f"{header}:IMP?", "word"),
        Setting(f"probe{tail}", f"{header}:PROB?"),
        Setting(f"inversion{tail}", f"{header}:INV?", "flag"),
        Setting(f"bandwidth limit{tail}", f"{header}:BWL?", "flag"),
    )


def _channels(
    numbers: tuple[int, ...], range_v: float | tuple[float, ...], offset_v: float | tuple[float, ...], called: str
) -> list[Channel]:
    """Raises: ConfigError: no such channels, or screens of others."""
    if not set(numbers) <= {1, 2, 3, 4} or len(set(numbers)) < len(numbers):
        raise ConfigError("the scope has no such channels", where=called, got=", ".join(map(str, numbers)),
                          allowed="1 to 4, each once", outputs="unchanged; nothing was sent")  # fmt: skip
    screens = []
    for name, given in (("range_v", range_v), ("offset_v", offset_v)):
        values = tuple(given) if isinstance(given, tuple | list) else (given,) * len(numbers)
        if len(values) != len(numbers):
            raise ConfigError("a number for each channel, or one for all", where=called, got=f"{name} of {len(values)} numbers",
                              allowed=f"{len(numbers)}", outputs="unchanged; nothing was sent")  # fmt: skip
        screens.append(values)
    found = []
    for k, (number, full, middle) in enumerate(zip(numbers, *screens, strict=True)):
        name = f"scope channel {number}"
        port = Port(name, middle - 0.5 * full, middle + 0.5 * full, "V")
        found.append(Channel(number, port, full, middle, name, f" of channel {number}" if k else ""))
    return found


def _screen(called: str, channels: list[Channel]) -> Port:
    """The port of all channels."""
    if len(channels) == 1:
        return channels[0].port
    lows, highs = zip(*((channel.port.shared_low, channel.port.shared_high) for channel in channels), strict=True)
    return Port(called, tuple(lows), tuple(highs), "V", len(channels))


def _turned(where: str, got: str, allowed: str) -> Changed:
    return Changed(
        "the settings of the scope changed during the measurement", where=where, got=got, allowed=allowed,
        outputs="inside their limits", todo="leave the front panel alone, then repeat; the settings will be sent again",
    )  # fmt: skip


def _scaled(scale: Scale) -> str:
    return f"{scale.volts_per_word:g} V a word, {scale.zero_v:g} V at word 0"


def _same(a: Scale, b: Scale) -> bool:
    return math.isclose(a.volts_per_word, b.volts_per_word, rel_tol=1e-6) and abs(a.zero_v - b.zero_v) < a.volts_per_word


def _parse(preamble: str, shape: tuple[int, float, float], most: int, where: str) -> tuple[int, Scale, Axis]:
    """Points, scale and axis of a preamble, if the record holds what was asked for."""
    samples, rate_hz, start_s = shape
    try:
        fields = [reading(field) for field in preamble.split(",")]
    except ValueError:
        fields = []
    if len(fields) != 10:
        raise InstrumentError("not a waveform preamble", where=where, got=preamble[:120], allowed="ten numbers")
    if not all(math.isfinite(field) and abs(field) < SENTINEL for field in fields):
        raise NotAReading("the preamble says that there is no measurement", where=where, got=preamble[:120])
    form, _, points, _, step_s, origin_s, reference, volts, origin_v, zero = fields
    axis = Axis(origin_s - reference * step_s, step_s)
    late_s = axis.start_s - start_s
    short_s = (samples - 1) / rate_hz - late_s - (points - 1) * step_s
    if form != WORD or points > most or not 0 < step_s * rate_hz < 1 + 1e-6 or late_s > step_s or short_s > step_s:
        raise InstrumentError(
            "the scope recorded something else than it was asked for",
            where=where,
            got=f"format {form:g}, {points:g} samples, {step_s:g} s apart, from {axis.start_s:g} s",
            allowed=f"format {WORD} (WORD), {samples} samples, {1 / rate_hz:g} s apart or closer, from {start_s:g} s",
            todo="choose a symbol rate that divides the sampling clock, or a shorter record",
        )
    if not 0 < volts <= HIGHEST_V or max(abs(origin_v), abs(zero * volts)) > HIGHEST_V:
        raise NotAReading(
            "the preamble has no scale", where=where, got=f"{volts:g} V a word, {origin_v:g} V at word {zero:g}",
            allowed=f"above 0, up to {HIGHEST_V:g} V",
        )  # fmt: skip
    return round(points), Scale(volts, origin_v, zero), axis


def _input(ohm: float, where: str) -> str:
    if ohm in INPUTS:
        return INPUTS[ohm]
    raise ConfigError("the scope has no such input", where=where, got=f"{ohm:g} ohm", allowed="50 ohm or 1 Mohm",
                      outputs="unchanged; nothing was sent", todo="correct input in the bench file")  # fmt: skip


def _model(identity: Identity) -> Model:
    for prefix, model in MODELS.items():
        if identity.model.replace("-", "").replace(" ", "").startswith(prefix):
            return model
    raise WrongInstrument(
        "this is not a scope that the driver knows",
        where="scope",
        got=f"{identity.maker} {identity.model}",
        allowed=", ".join(f"{prefix}…" for prefix in MODELS),
        outputs="unchanged",
        todo="correct the address in the bench file",
    )
