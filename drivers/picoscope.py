"""PicoScope of the 5000 series through the maker's package: its generator drives, its inputs read, and no cable triggers.

    [instruments.pico]
    use = "drivers.picoscope:PicoScope5000"
    resource = "GQ918/0053"                              serial number; see drivers/picosdk.py

    arm      ps5000aRunBlock without a trigger: the block begins, and with it the record, which waits for SIGGEN_SCOPE_TRIG
    rate     DAC rate * phase / 2^32 * samples of the buffer, phase a whole number: a coarse ladder of sample rates
    off      ps5000aSetSigGenBuiltIn, 0 V: there is no switch
    V at a load = V told * load / (load + 600 ohm)

The delay from block to record is measured when the bench opens. The unit cannot be asked for what it plays: that it took it is
all that is known. It has no front panel. The guardian opens it when this process is gone.

Source: PicoScope 5000 Series (A API) Programmer's Guide, "Timebases", "ps5000aSetSigGenArbitrary", "ps5000aRunBlock",
"ps5000aSigGenFrequencyToPhase", "ps5000aGetValues"; PicoScope 5000D Series data sheet. That a block without a trigger starts
the record is from public programs; nothing here was tried on a real unit.
"""

from __future__ import annotations

import ctypes
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drivers.closing import close_all
from drivers.picosdk import SIMULATED, TALK, Unit
from drivers.safe import SafeState, Step, switch_off_surely
from drivers.scope_records import CENTRE, Asked, Channel, channels_of, screen_of, unsigned
from drivers.scpi import Expect
from drivers.time_bases import Rates
from drivers.waveform.record import Axis, Codes, Memory, Record, Scale
from hil.device import Port
from hil.errors import (
    UNTOUCHED,
    CommandRefused,
    ConfigError,
    ContractError,
    MissedTrigger,
    OutOfRange,
    Saturated,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.units import Unbounded

REACH_V, SOURCE_OHM, DAC_HZ, FULL_SCALE = 2.0, 600.0, 200e6, 32767
RANGES_V = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # to either side; the place is the number of the API
SCOPE_TRIGGER, DC_COUPLING = 1, 1
DIVIDERS = 4096  # of the clock, or of an eighth of it
DRIFT = 0.1  # samples, over the longest record
POLL_S = 1e-4
BY_HAND = "unplug its USB cable"


@dataclass(frozen=True, slots=True)
class Base:
    """The timebases of a number of bits: what divides the clock, and the number of the API for it.

    Args:
        clock_hz: highest samples/s.
        first: number of the timebase of that.
        powers: so many timebases halve it, one after the other; those behind divide an eighth of it.
    """

    clock_hz: float
    first: int
    powers: int

    @property
    def dividers(self) -> tuple[int, ...]:
        """All dividers, rising."""
        step = 1 << self.powers
        return (*(1 << k for k in range(self.powers)), *range(step, DIVIDERS * step, step))

    def number(self, divider: int) -> int:
        """The timebase of a divider."""
        step = 1 << self.powers
        return self.first + (divider.bit_length() - 1 if divider < step else self.powers + divider // step - 1)


BASES = {8: Base(1e9, 0, 3), 12: Base(5e8, 1, 3), 14: Base(125e6, 3, 0)}


@dataclass(frozen=True, slots=True)
class Block:
    """A block: samples before and behind its trigger, timebase, samples that are not read, s between two."""

    before: int
    behind: int
    timebase: int
    skipped: int
    step_s: float


class PicoGenerator:
    """The generator; a Generator of drivers/waveform/roles.py."""

    def __init__(self, unit: Unit, low_v: float, high_v: float, load_ohm: float) -> None:
        self._unit, self._low, self._high = unit, float(low_v), float(high_v)
        self._share = 1.0 if math.isinf(load_ohm) else load_ohm / (load_ohm + SOURCE_OHM)
        self.drive = Port("PicoScope generator", low_v, high_v, "V")
        edge = max(abs(low_v), abs(high_v))
        if edge > REACH_V * self._share * (1 + 1e-9) or not low_v < high_v:
            raise OutOfRange(
                "the generator has no such limits", where=unit.where, got=f"{low_v:g} to {high_v:g} V",
                allowed=f"{REACH_V * self._share:.4g} V either side, at {load_ohm:g} ohm behind its 600 ohm", outputs="0 V",
                todo="correct low and high, or load",
            )  # fmt: skip
        self._offset_uv = round(0.5e6 * (low_v + high_v) / self._share)
        self._vpp_uv = 2 * round(0.5e6 * (high_v - low_v) / self._share)
        low, high, least, most = ctypes.c_int16(), ctypes.c_int16(), ctypes.c_uint32(), ctypes.c_uint32()
        unit.call("SigGenArbitraryMinMaxValues", *map(ctypes.byref, (low, high, least, most)))
        self.memory = Memory(least.value, most.value)
        self._rate_hz, self._record = 0.0, np.empty(0, np.int16)
        self._on: bool | None = False  # None: not known

    @property
    def channels(self) -> tuple[int, ...]:
        """The one output."""
        return (1,)

    def prepare(self, sample_rate_hz: float, external: bool = False) -> None:
        """Take note of the sample rate, in Hz. Raises: ConfigError: it has no such rate, or is to follow another generator."""
        if external:
            raise ConfigError(
                "a PicoScope does not wait for the edge of another generator", where=self._unit.where, outputs="0 V",
                todo="name it first in [node] drive, or alone",
            )  # fmt: skip
        if sample_rate_hz != self._rate_hz:
            self._phase(sample_rate_hz, self.memory.most)
            self._rate_hz = sample_rate_hz

    def _phase(self, rate_hz: float, samples: int) -> int:
        """Ask for the phase step of a record. Raises: ConfigError: it plays at another rate, so symbols would drift away."""
        step, quantum_hz, exists = ctypes.c_uint32(), DAC_HZ / 2**32 * self.memory.most, 0 < rate_hz <= DAC_HZ
        if exists:
            wanted = (ctypes.c_double(rate_hz / samples), 0, samples, ctypes.byref(step))
            self._unit.call("SigGenFrequencyToPhase", *wanted, doing="a sample rate")
        if not exists or abs(step.value * quantum_hz / rate_hz - 1) * samples > DRIFT:
            near = max(1, round(rate_hz / quantum_hz)) * quantum_hz if exists else DAC_HZ
            power = DAC_HZ / 2 ** max(0, round(math.log2(DAC_HZ / near)))
            raise ConfigError(
                "the generator does not play at this rate", where=self._unit.where, got=f"{rate_hz:.12g} Sa/s",
                allowed=f"multiples of {quantum_hz:.9g} Sa/s up to {DAC_HZ:g}: {near:.12g}, or {power:.12g}", outputs="0 V",
                todo="choose symbol_rate in [waveform] so that it, times samples_per_symbol, is one of these",
            )  # fmt: skip
        return step.value

    def encode(self, volts: NDArray[np.float32], channel: int = 0) -> Codes:
        """Turn volts into codes of the DAC, same shape; the caller has checked them against `drive`."""
        level = (volts - 0.5 * (self._low + self._high)) * (2 * FULL_SCALE / (self._high - self._low))
        codes: Codes = np.clip(np.rint(level), -FULL_SCALE, FULL_SCALE).astype(np.int16)
        return codes

    def upload(self, codes: Codes, channel: int = 0) -> None:
        """Keep a record (n,), and let it wait for the next block if the output is on. Raises: ConfigError, CommandRefused."""
        if not self.memory.least <= len(codes) <= self.memory.most:
            raise ConfigError(
                "the record does not fit the generator", where=self._unit.where, got=f"{len(codes)} samples",
                allowed=f"{self.memory.least} to {self.memory.most}", outputs="unchanged; nothing was sent",
            )  # fmt: skip
        self._record = np.ascontiguousarray(codes, np.int16)
        if self._on:
            self._send()

    def _send(self) -> None:
        step, count = self._phase(self._rate_hz, len(self._record)), len(self._record)
        record = self._record.ctypes.data_as(ctypes.c_void_p)
        shots, rising = 1, 0
        self._unit.call(
            "SetSigGenArbitrary", self._offset_uv, self._vpp_uv, step, step, 0, 0, record, count, 0, 0, 0, shots, 0, rising,
            SCOPE_TRIGGER, 0, doing="a record",
        )  # fmt: skip

    def output(self, on: bool) -> None:
        """Rest at the first value of the record, or give 0 V."""
        if on is self._on:
            return
        if on:
            self._send()
        else:
            self._unit.silence()
        self._on = on

    def trigger(self) -> None:
        """Do nothing: the record begins with the block, which the digitizer begins last."""

    def forget(self) -> None:
        """Send the record again when the output is wanted."""
        self._rate_hz, self._on = 0.0, None

    def clear(self) -> None:
        """Stop the block."""
        self.forget()
        self._unit.call("Stop")

    def reopen(self) -> None:
        """Open the unit again."""
        self.forget()
        self._unit.anew()

    def identify(self) -> str:
        """See that the same unit answers; return who it is. Raises: WrongInstrument."""
        return str(self._unit.identify())

    def safe(self) -> None:
        """Give 0 V; after a fault, over the unit opened anew. Raises: UnsafeOutputs: it does not say that it does."""
        self.forget()
        switch_off_surely(self._unit.silence, self._unit.anew, self._unsafe)
        self._on = False

    def _unsafe(self, got: str) -> UnsafeOutputs:
        return UnsafeOutputs("the output could not be brought to 0 V", where=self._unit.where, got=got, todo=BY_HAND,
                             outputs=f"unknown; if it still has power, {self._low:g} to {self._high:g} V")  # fmt: skip

    def close(self) -> None:
        """Give 0 V, and give the unit back. May be called twice. Raises: UnsafeOutputs."""
        if self._unit.opened:
            close_all([self.safe, self._unit.close])


class PicoDigitizer:
    """The inputs; a Digitizer of drivers/waveform/roles.py."""

    def __init__(self, unit: Unit, channels: list[Channel]) -> None:
        self._unit, self._channels, self._base = unit, channels, BASES[unit.bits]
        self.reading = screen_of(f"PicoScope input {', '.join(_letter(one) for one in channels)}", channels)
        self._rates = Rates(self._base.clock_hz, self._base.dividers)
        self.memory = Memory(1, int(unit.number("MemorySegments", ctypes.c_int32, 1)) // len(channels))
        self._largest = int(unit.number("MaximumValue", ctypes.c_int16))
        self._asked: Asked | None = None
        self._block = Block(0, 0, 0, 0, 0.0)
        self._records: list[NDArray[np.int16]] = []
        self._over = 0

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the inputs that are used; A is 1."""
        return tuple(one.number for one in self._channels)

    def finer(self, rate_hz: float, most: int) -> int:
        """Return the largest multiple of `rate_hz`, up to `most`, that it can sample at; 1 if there is none."""
        return self._rates.finer(rate_hz, most)

    def configure(self, samples: int, rate_hz: float, start_s: float) -> None:
        """Take `samples` samples at `rate_hz`, the first `start_s` seconds after the block has begun. Raises: ConfigError."""
        if self._asked == (samples, rate_hz, start_s):
            return
        unit, self._asked = self._unit, None
        divider = self._rates.divider(rate_hz, unit.where)
        step_s, timebase = divider / self._rates.clock_hz, self._base.number(divider)
        first, count = math.floor(start_s / step_s + 1e-6), math.ceil(samples / (rate_hz * step_s) - 1e-6)
        for number in (1, 2):
            used = next((one for one in self._channels if one.number == number), None)
            place, offset_v = (0, 0.0) if used is None else (RANGES_V.index(used.range_v / 2), -used.offset_v)
            unit.call("SetChannel", number - 1, int(used is not None), DC_COUPLING, place, offset_v, doing="an input")
        unit.call("SetSimpleTrigger", 0, 0, 0, 0, 0, 0)
        interval_ns, most = ctypes.c_float(), ctypes.c_int32()
        unit.call("GetTimebase2", timebase, count, ctypes.byref(interval_ns), ctypes.byref(most), 0, doing="a sample rate")
        if not math.isclose(interval_ns.value * 1e-9, step_s, rel_tol=1e-5):
            raise CommandRefused(
                "the unit samples at another rate", where=unit.where, got=f"{interval_ns.value:g} ns apart",
                allowed=f"{step_s * 1e9:g} ns", outputs="0 V", todo="choose another symbol_rate",
            )  # fmt: skip
        self._block = Block(max(0, -first), max(1, first + count), timebase, max(0, first), step_s)
        self._asked = (samples, rate_hz, start_s)

    def arm(self) -> None:
        """Begin the block, and the record with it; `trigger` of the generator has nothing to do."""
        if self._asked is None:
            raise ContractError("the digitizer is not configured", where=self._unit.where, todo="configure() it first")
        block = self._block
        self._unit.call("RunBlock", block.before, block.behind, block.timebase, None, 0, None, None, doing="a block")

    def wait(self, timeout_s: float) -> None:
        """Wait until the block is complete, and fetch it. Raises: MissedTrigger."""
        due, unit, block = time.monotonic() + timeout_s, self._unit, self._block
        while not unit.number("IsReady", ctypes.c_int16):
            if time.monotonic() > due:
                unit.call("Stop")
                raise MissedTrigger("the block is not complete", where=unit.where, got=f"nothing in {timeout_s:g} s",
                                    allowed="a block", outputs="at rest", todo="repeat the shot")  # fmt: skip
            time.sleep(POLL_S)
        wanted = block.before + block.behind - block.skipped
        count, over = ctypes.c_uint32(wanted), ctypes.c_int16()
        self._records = [np.zeros(wanted, np.int16) for _ in self._channels]
        for one, record in zip(self._channels, self._records, strict=True):
            unit.call("SetDataBuffer", one.number - 1, record.ctypes.data_as(ctypes.c_void_p), wanted, 0, 0)
        unit.call("GetValues", block.skipped, ctypes.byref(count), 1, 0, 0, ctypes.byref(over), doing="reading a block")
        self._over = over.value
        if count.value != wanted:
            self._asked = None
            raise CommandRefused("the block has another length", where=unit.where, got=f"{count.value} samples",
                                 allowed=f"{wanted}", outputs="at rest", todo="repeat the shot")  # fmt: skip

    def read(self, channel: int = 0) -> Record:
        """Return the record of an input. Raises: Saturated: it left its range."""
        one, block = self._channels[channel], self._block
        if self._over >> (one.number - 1) & 1:
            raise Saturated(
                "the input left its range", where=f"{self._unit.where} input {_letter(one)}", got="an overflow",
                allowed=f"within {one.range_v / 2:g} V of {one.offset_v:g} V", outputs="at rest", todo="use a larger range",
            )  # fmt: skip
        scale = Scale(0.5 * one.range_v / self._largest, one.offset_v, CENTRE)
        return Record(
            unsigned(self._records[channel]), scale, Axis((block.skipped - block.before) * block.step_s, block.step_s)
        )

    def forget(self) -> None:
        """Set everything again with the next record."""
        self._asked = None

    def clear(self) -> None:
        """Stop the block."""
        self.forget()
        self._unit.call("Stop")

    def reopen(self) -> None:
        """Set everything again: the generator is the same unit, and opens it."""
        self.forget()

    def identify(self) -> str:
        """See that the same unit answers; return who it is. Raises: WrongInstrument."""
        return str(self._unit.identify())

    def close(self) -> None:
        """Do nothing: the generator is the same unit, and closes it."""


class PicoScope5000:
    """A unit of the series 5000A to 5000D. The constructor brings its output to 0 V.

    Args:
        address: "SERIAL", or "PATH::SERIAL" with the path of the library ps5000a: `resource` in a bench file.
        channel: of the input, A is 1.
        channels: both. Empty: `channel` alone.
        low_v, high_v: limits of the drive, V at the load.
        load_ohm: what the generator drives, behind its own 600 ohm; infinite, or "HighZ" in a file, for high impedance.
        range_v: full scale of the inputs, 20 mV to 40 V; a list: of each channel.
        offset_v: voltage at the middle of a range; a list: of each channel.
        bits: of the converter: 8, 12 or 14.
        called: its name on the bench.
        expect: who must answer.
        beat: called with every use.

    generator, digitizer: the two roles.

    Raises:
        ConfigError: package or library is not installed, or no such channels or ranges. OpenFailed: no such unit, or another
        program has it. WrongInstrument. OutOfRange: limits wider than the generator's.
    """

    def __init__(
        self,
        address: str,
        *,
        channel: int = 1,
        channels: tuple[int, ...] = (),
        low_v: float = -REACH_V,
        high_v: float = REACH_V,
        load_ohm: Unbounded = math.inf,
        range_v: float | tuple[float, ...] = 2.0,
        offset_v: float | tuple[float, ...] = 0.0,
        bits: Literal[8, 12, 14] = 14,
        called: str = "PicoScope",
        expect: Expect | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._address, self._called, self._limits = address, called, (float(low_v), float(high_v))
        inputs = channels_of(tuple(channels) or (channel,), range_v, offset_v, called)
        wrong = [one for one in inputs if one.number > 2 or one.range_v / 2 not in RANGES_V]
        if wrong:
            raise ConfigError(
                "a PicoScope has no such input or range", where=called, outputs=UNTOUCHED, todo="correct channel, or range",
                got=f"input {_letter(wrong[0])}, range {wrong[0].range_v:g} V",
                allowed=f"inputs 1 (A) and 2 (B); ranges of {', '.join(f'{2 * half:g}' for half in RANGES_V)} V, end to end",
            )  # fmt: skip
        self._unit = Unit(address, bits, called, beat)
        try:
            self.identity = self._unit.identify()
            if not (expect or Expect()).admits(self.identity):
                raise WrongInstrument(
                    "another PicoScope answers", where=f"{called} at {address}", got=str(self.identity), allowed=str(expect),
                    outputs="0 V", todo="correct the serial number, or who is expected there",
                )  # fmt: skip
            self._unit.silence()
            self.generator = PicoGenerator(self._unit, low_v, high_v, load_ohm)
            self.digitizer = PicoDigitizer(self._unit, inputs)
        except BaseException:
            self._unit.close()
            raise

    @property
    def channels(self) -> tuple[int, ...]:
        """Numbers of the inputs that are used; the output is 1."""
        return self.digitizer.channels

    @property
    def simulated(self) -> bool:
        """True of a unit that a virtual bench simulates."""
        return SIMULATED in self.identity.firmware

    def safe_state(self) -> SafeState:
        """Describe the safe state: 0 V, of the unit that answered."""
        who, (low, high) = self.identity, self._limits
        return SafeState(
            self._called, self._address, TALK, Expect(who.maker, who.model, who.serial),
            (Step("silent=true", "silent", ("1", "true")),), how=json.dumps({"address": self._address}), shared=False,
            outputs=f"unknown; if it still has power, {low:g} to {high:g} V", imports=("picosdk",), read_back=False,
        )  # fmt: skip

    def safe(self) -> None:
        """Give 0 V; see PicoGenerator.safe."""
        self.generator.safe()

    def close(self) -> None:
        """Give 0 V, and give the unit back. May be called twice. Raises: UnsafeOutputs."""
        self.generator.close()


def _letter(one: Channel) -> str:
    return "ABCD"[one.number - 1]
