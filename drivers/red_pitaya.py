r"""Red Pitaya STEMlab 125-14 through its SCPI server: two outputs and two inputs of one board, without a cable for the trigger.

    SOUR1:FUNC ARBITRARY; SOUR1:TRAC:DATA:DATA 0.000000,0.010000,...     text, -1 to 1, one period, 16,384 at most
    SOUR1:FREQ:FIX <rate / points>; SOUR1:VOLT <V>; SOUR1:BURS:STAT BURST; NCYC 1; NOR 1; SOUR1:TRIG:INT
    ACQ:DEC <n>; ACQ:TRIG:DLY <samples>; ACQ:START; ACQ:TRIG AWG_PE           the generator's own start is the trigger
    ACQ:TRIG:STAT? TD and ACQ:TRIG:FILL? 1, then ACQ:SOUR1:DATA:OLD:N? <n>     #<d><bytes><big-endian float32, V>

    output into 50 ohm = VOLT sample + VOLT:OFFS          VOLT is the amplitude to one side, not peak to peak
    seconds after the trigger of the oldest sample = (DLY - 8192) n / 125 MHz

Messages end with \r\n both ways. *RST does nothing: GEN:RST and ACQ:RST do. ACQ:RST brings back text, and averages the samples
that decimation leaves out, which is kept. Decimations are 1, 2, 4, 8, and all from 16 on. Jumpers on the board choose 1 V (LV)
or 20 V (HV) and nothing tells which. The event register does not say that the power was cut: settings are found changed. The
oldest firmware that has all of this is 2.00.

Source: the server's source, github.com/RedPitaya/RedPitaya, scpi-server/src/{scpi-commands,scpi-server,generate,acquire}.cpp
and scpi-parser (commands, identity, ends of messages, what resets set, forms of replies); Red Pitaya documentation 2.07, "SCPI
commands", "Generator", "Acquisition" (buffer of 16,384, trigger at sample 8192, delay), "STEMlab 125-14" (1 V into 50 ohm, 14
bits, 125 MSa/s). That the volts double without a load is assumed from the output's 50 ohm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from drivers.closing import close_all
from drivers.links.link import Link
from drivers.read_back import OUTPUT, Setting
from drivers.safe import SafeState
from drivers.scope_models import Model as ScopeModel
from drivers.scope_models import Rails, unknown
from drivers.scope_records import CENTRE, Asked, Channel, Described, part
from drivers.scpi import Identity, Scpi, spoken
from drivers.scpi_apart import Crlf
from drivers.scpi_digitizer import RANGE, ScpiDigitizer
from drivers.scpi_generator import FULL_SCALE, Headers, Model, ScpiGenerator
from drivers.scpi_generator import Channel as Output
from drivers.scpi_talk import CRLF
from drivers.time_bases import Rates
from drivers.waveform.record import Axis, Codes, Memory, Scale, Words
from hil.errors import ConfigError, NotAReading
from hil.units import Unbounded

CLOCK_HZ, BUFFER = 125e6, 16_384
DIVIDERS = (1, 2, 4, 8, *range(16, 8193))
GAINS = {2.0: "LV", 40.0: "HV"}  # range in V -> jumper
DELAY = "trigger delay"
FINE = 30_000  # words of half a range
CLIPPED = 29_400  # 0.98 of half a range: calibration moves the rail
PLACES = 1e-5  # numbers are told with six digits
MODELS = {f"INSTR20{year}": Model(CLOCK_HZ, Memory(2, BUFFER), least_vpp=2e-3) for year in range(14, 40)}


class PitayaGenerator(ScpiGenerator):
    """The outputs, one or both; arguments as of ScpiGenerator. A ramp before the output goes off is not offered."""

    MODELS: ClassVar[Mapping[str, Model]] = MODELS
    headers: ClassVar[Headers] = Headers("OUTPUT{}:STATE", "SOUR{}", "SOUR{}:VOLT", "SOUR{}:VOLT:OFFS")
    open_circuit_v: ClassVar[float] = 2.0
    switch: ClassVar[tuple[str, str]] = ("OFF", "ON")
    talk: ClassVar[str] = CRLF
    speaks: ClassVar[type[Scpi]] = Crlf
    beginning: ClassVar[tuple[str, ...]] = ("GEN:RST", "*CLS")
    _rate_hz = 0.0  # of the record that is prepared

    def _held_of(self, channel: Output) -> tuple[Setting, ...]:
        """The frequency is not among them: it follows the length of the record, and is read back with each."""
        source, tail = channel.source, channel.tail
        return (
            Setting(f"{OUTPUT}{tail}", f"{channel.output}?", "flag"),
            Setting(f"amplitude{tail}", f"{source}:VOLT?", tolerance=1e-6),
            Setting(f"offset{tail}", f"{source}:VOLT:OFFS?", tolerance=1e-6),
            Setting(f"function{tail}", f"{source}:FUNC?", "word"),
            Setting(f"phase{tail}", f"{source}:PHAS?"),
            Setting(f"burst{tail}", f"{source}:BURS:STAT?", "word"),
            Setting(f"burst cycles{tail}", f"{source}:BURS:NCYC?"),
            Setting(f"bursts{tail}", f"{source}:BURS:NOR?"),
            Setting(f"trigger source{tail}", f"{source}:TRIG:SOUR?", "word"),
        )

    def _swing_v(self, amplitude: float) -> float:
        return amplitude * self._limit_v(self._load_ohm)

    def _offset_v(self, offset: float) -> float:
        return offset * self._limit_v(self._load_ohm)

    def _level(self, channel: Output) -> tuple[float, float]:
        """Amplitude to one side, and offset, as they are told: V into 50 ohm, so 1 is full scale at any load."""
        limit = self._limit_v(self._load_ohm)
        return 0.5 * channel.amplitude_vpp / limit, channel.offset_v / limit

    def _levels(self, channel: Output) -> tuple[str, ...]:
        """The offset is 0 while the amplitude moves."""
        volts, (amplitude, offset) = f"{channel.source}:VOLT", self._level(channel)
        return f"{volts}:OFFS 0", f"{volts} {amplitude:.6g}", f"{volts}:OFFS {offset:.6g}"

    def _play_once(self, sample_rate_hz: float, external: bool) -> tuple[str, ...]:
        self._rate_hz, self._external = sample_rate_hz, external
        words = ("FUNC ARBITRARY", "PHAS 0", "BURS:STAT BURST", "BURS:NCYC 1", "BURS:NOR 1")
        trigger = f"TRIG:SOUR {'EXT_PE' if external else 'INT'}"
        return tuple(f"{one.source}:{word}" for one in self._channels for word in (*words, trigger))

    def _told(self, channel: Output, sample_rate_hz: float) -> Iterable[tuple[str, float | str, str]]:
        source, (amplitude, offset) = channel.source, self._level(channel)
        return (
            (f"{source}:VOLT?", float(f"{amplitude:.6g}"), "V"),
            (f"{source}:VOLT:OFFS?", float(f"{offset:.6g}"), "V"),
            (f"{source}:FUNC?", "ARBITRARY", ""),
            (f"{source}:BURS:STAT?", "BURST", ""),
            (f"{source}:BURS:NCYC?", 1.0, "cycles"),
            (f"{source}:TRIG:SOUR?", "EXT_PE" if self._external else "INT", ""),
        )

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Replace the record (n,) of a channel, as text; see ScpiGenerator.upload."""
        self._check_record(codes)
        source, link, hertz = self._channels[channel].source, self._scpi.link, self._rate_hz / len(codes)
        text = ",".join(f"{share:.6f}" for share in (codes.astype(np.float64) / FULL_SCALE).tolist())
        with link.transaction():
            link.write(f"{source}:TRAC:DATA:DATA {text}".encode())
            self._scpi.send(f"{source}:FREQ:FIX {hertz:.12g}")
            errors = self._scpi.errors()
            found = self._scpi.ask_float(f"{source}:FREQ:FIX?")
        if errors or abs(found / hertz - 1) > PLACES:
            raise self._not_taken("; ".join(errors) or f"it plays at {found:g} Hz in place of {hertz:g} Hz")

    def trigger(self) -> None:
        """Play the records once, both channels by one command. Does not wait for their end."""
        numbers = self.channels
        self._scpi.link.write(b"SOUR:TRIG:INT" if len(numbers) > 1 else f"SOUR{numbers[0]}:TRIG:INT".encode())


class PitayaScope(ScpiDigitizer):
    """The inputs, one or both; arguments as of ScpiDigitizer. A range is 2 V or 40 V, as the jumpers stand."""

    timed: ClassVar[tuple[str, ...]] = (RANGE, DELAY)
    rails: ClassVar[Rails] = Rails(CENTRE - CLIPPED, CENTRE + CLIPPED)
    beginning: ClassVar[tuple[str, ...]] = ("ACQ:RST", "*CLS")
    stop: ClassVar[str] = "ACQ:STOP"
    form = ("ACQ:DATA:UNITS?;ACQ:DATA:FORMAT?", "VOLTS;BIN")
    speaks: ClassVar[type[Scpi]] = Crlf
    averaging = "the board averages what decimation leaves out, but no records"
    _edge_at = "the generator's own start"
    _delay = BUFFER // 2

    def _limits(self, identity: Identity) -> ScopeModel:
        if identity.model.upper() not in MODELS:
            raise unknown(identity, "INSTR20…, a Red Pitaya")
        wrong = [one for one in self._channels if one.number > 2 or one.range_v not in GAINS or one.offset_v]
        if wrong:
            raise ConfigError(
                "the input has no such channel, range or offset", where=wrong[0].name,
                got=f"range {wrong[0].range_v:g} V, offset {wrong[0].offset_v:g} V",
                allowed="channels 1 and 2, range 2 V (jumper LV) or 40 V (HV), no offset", outputs="off; nothing was set",
                todo="correct range in the bench file, and look at the jumpers",
            )  # fmt: skip
        self._bases = Rates(CLOCK_HZ, DIVIDERS)
        return ScopeModel(CLOCK_HZ, Memory(1, BUFFER))

    def _held_of(self, channel: Channel) -> tuple[Setting, ...]:
        return (Setting(f"jumper{channel.tail}", f"ACQ:SOUR{channel.number}:GAIN?", "word"),)

    def _held_besides(self) -> tuple[Setting, ...]:
        return (
            Setting(RANGE, "ACQ:DEC?"),
            Setting(DELAY, "ACQ:TRIG:DLY?"),
            Setting("averaging of what decimation leaves out", "ACQ:AVG?", "word"),
            Setting("unit of the samples", "ACQ:DATA:UNITS?", "word"),
            Setting("format", "ACQ:DATA:FORMAT?", "word"),
        )

    def _set_up(self) -> None:
        gains = [f"ACQ:SOUR{one.number}:GAIN {GAINS[one.range_v]}" for one in self._channels]
        self._scpi.send(self.stop, *gains, "ACQ:AVG ON", "ACQ:DATA:UNITS VOLTS", "ACQ:DATA:FORMAT BIN")
        self._check_form()

    def _set_time(self, samples: int, rate_hz: float, start_s: float) -> None:
        assert isinstance(self._bases, Rates)
        divider = self._bases.divider(rate_hz, self._name)
        self._delay = BUFFER // 2 + int(np.floor(start_s * CLOCK_HZ / divider + 1e-6))
        self._scpi.send(f"ACQ:DEC {divider}", f"ACQ:TRIG:DLY {self._delay}")
        self._took("ACQ:DEC?", divider, "")
        self._took("ACQ:TRIG:DLY?", self._delay, "samples")

    def arm(self) -> None:
        """Wait for the generator's start; see ScpiDigitizer.arm. Samples before the trigger take their time first."""
        assert self._shape is not None
        self._scpi.send("ACQ:START")
        before = BUFFER // 2 - self._delay
        if before > 0:
            time.sleep(before / self._shape[1])
        self._scpi.send("ACQ:TRIG AWG_PE")

    def _runs(self) -> bool:
        return self._scpi.ask("ACQ:TRIG:STAT?;ACQ:TRIG:FILL?").upper() != "TD;1"

    def _preamble(self, one: Channel) -> str:
        return self._scpi.ask(
            f"ACQ:DATA:UNITS?;ACQ:DATA:FORMAT?;ACQ:SOUR{one.number}:GAIN?;ACQ:DEC?;ACQ:TRIG:DLY?;ACQ:BUF:SIZE?"
        )

    def _described(self, text: str, asked: Asked, one: Channel) -> Described:
        form, (divider, delay, held) = text.split(";")[:3], map(float, text.split(";")[3:])
        axis = Axis((delay - held / 2) * divider / CLOCK_HZ, divider / CLOCK_HZ)
        found = part(asked, axis, round(held), Scale(0.5 * one.range_v / FINE, 0.0, CENTRE))
        return self._checked(found, asked, one, ";".join(form).upper(), f"{self.form[1]};{GAINS[one.range_v]}")

    def _words(self, one: Channel) -> Words:
        """Read the oldest samples, which are volts, as words."""
        volts = self._scpi.ask_block(
            f"ACQ:SOUR{one.number}:DATA:OLD:N? {one.first + one.points}", ">f4", one.first + one.points
        )
        if not np.isfinite(volts).all():
            raise NotAReading("the record has samples that are no numbers", where=one.name, outputs="inside their limits",
                              todo="repeat the shot")  # fmt: skip
        words = np.rint(volts[one.first :] * (FINE / (0.5 * one.range_v))) + CENTRE
        found: Words = np.clip(words, 0, 65_535).astype(np.uint16)
        return found


class _Lent(Crlf):
    """A conversation over a wire that another one closes."""

    def close(self) -> None:
        """Leave the wire open."""


class RedPitaya:
    """Generator and digitizer of one board. The constructor resets both: outputs off.

    Args:
        scpi: an open conversation with the board, or a Link. This object owns and closes it, also when it raises.
        channel: 1 or 2, of the output and of the input.
        channels: both. Empty: `channel` alone.
        load_ohm: what the outputs are connected to; infinite, or "HighZ" in a file, for high impedance.
        low_v, high_v: narrower limits of the drive, V; a list: of each channel.
        range_v: 2 where the jumpers of the inputs stand at LV, 40 where at HV; a list: of each channel.
        dac_bits: round codes to so many bits; None leaves the rounding to the board.
        clock: seconds from any origin; deadlines are measured by it.

    generator, digitizer: the two roles.

    Raises:
        WrongInstrument: no Red Pitaya. OutOfRange: limits wider than the board's. ConfigError: no such channels, or ranges.
    """

    speaks: ClassVar[type[Scpi]] = Crlf

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channel: int = 1,
        channels: tuple[int, ...] = (),
        load_ohm: Unbounded = 50.0,
        low_v: float | tuple[float, ...] | None = None,
        high_v: float | tuple[float, ...] | None = None,
        range_v: float | tuple[float, ...] = 2.0,
        dac_bits: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        own = spoken(scpi, Crlf)
        self.generator = PitayaGenerator(
            own, channel=channel, channels=channels, load_ohm=load_ohm, low_v=low_v, high_v=high_v, dac_bits=dac_bits
        )
        try:
            lent = _Lent(own.link, expect=own.expect)
            self.digitizer = PitayaScope(lent, channel=channel, channels=channels, range_v=range_v, clock=clock)
        except BaseException:
            self.generator.close()
            raise

    @property
    def identity(self) -> Identity:
        """Who answered."""
        return self.generator.identity

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels that are used."""
        return self.generator.channels

    def safe_state(self) -> SafeState:
        """Describe the safe state: outputs off."""
        return self.generator.safe_state()

    def safe(self) -> None:
        """Bring the safe state about; see ScpiOutput.safe."""
        self.generator.safe()

    def close(self) -> None:
        """Make safe, verify it, and close the link; the second call does nothing. Raises: UnsafeOutputs."""
        closes: list[Any] = [self.generator.close, self.digitizer.close]  # outputs first
        close_all(closes)
