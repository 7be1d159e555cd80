"""Simulated PicoScope of the 5000 series, behind a library ps5000a that clients of the real one load: ps5000a.c.

    UNIT:OPEN? 2                     a call of the library is a line; the answer is a status of PicoStatus.h, and values
    SIGG:ARB? offset,vpp,phase,shots,kind,source,#8...      uV, codes as int16
    codes a second = DAC rate * phase / 2^32 * samples of the buffer      a coarse ladder of rates: phase is a whole number
    BLOC:RUN? before,behind,timebase                        without a trigger a block begins at once
    code = volts / range * 32767     with 8 bits 32512; a code at the end of the range sets a bit of BLOC:OVER?

A record that waits for SCOPE begins with the block. That a block without a trigger starts it is how public programs use the
real one; here it does so without delay. The generator has no switch: 0 V is what counts as off. Its source has 600 ohm. Not
simulated: streaming, segments, sweeps, downsampling, digital inputs, 15 and 16 bits, and that one program alone can open it.

Source: PicoScope 5000 Series (A API) Programmer's Guide, "Timebases", "ps5000aSetSigGenArbitrary", "ps5000aRunBlock"; PicoScope
5000D Series data sheet (generator: 14 bits, 200 MS/s, 2 V either side, 600 ohm).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hil.errors import ConfigError
from sim_devices.instruments.both_roles import BothRoles
from sim_devices.instruments.box import Message
from sim_devices.instruments.converter import HIGH, LOW
from sim_devices.instruments.drive import Drive
from sim_devices.instruments.generator_box import GeneratorBox
from sim_devices.instruments.generator_box import Model as GeneratorModel
from sim_devices.instruments.parameters import INFINITY, Choice, Flag, Number, Parameter, Value, number
from sim_devices.instruments.program_message import Block, ScpiError, blocked
from sim_devices.instruments.sampling import Sampling, Window
from sim_devices.instruments.scope_box import Model as ScopeModel
from sim_devices.instruments.scope_box import ScopeBox
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings
from sim_devices.instruments.volatile_memory import dac_codes

OK, BAD_PARAMETER, BAD_TIMEBASE, BAD_RANGE, BAD_CHANNEL, TOO_MANY, NONE_YET, BAD_INFO = 0, 13, 14, 15, 16, 29, 37, 41
TRIGGER_SOURCE, OVER_VOLTAGE, NO_WAVE, NO_FREQUENCY, NO_RESOLUTION, ON_USB, NO_SUCH_POWER = 48, 53, 274, 312, 379, 282, 283
DAC_HZ, ADC_HZ, SOURCE_OHM, REACH_UV = 200e6, 1e9, 600.0, 2_000_000
RANGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
RESOLUTIONS = {0: 8, 1: 12, 2: 14}
WAVES = ("SIN", "SQU", "TRI", "RAMP", "", "", "", "", "DC")
FREE, SCOPE, SOFT = 0, 1, 4  # what starts the generator
BUFFERS = {"5242D": 1 << 14, "5243D": 1 << 15, "5244D": 3 << 14, "5442D": 1 << 14, "5443D": 1 << 15, "5444D": 3 << 14}
GENERATORS = {name: GeneratorModel(DAC_HZ, DAC_HZ, 14, size, 10, 20e6) for name, size in BUFFERS.items()}
SCOPES = {name: ScopeModel(name, ADC_HZ, 1 << 27, 14) for name in BUFFERS}
SPECIMEN = ("5243D", "JR001/0001")
SONAME = "libps5000a.so.2"


def interval_s(timebase: int, bits: int) -> float | None:
    """Return the time between samples of a timebase; None: there is no such timebase."""
    first, doubled, behind_hz = {8: (0, 1e9, 125e6), 12: (1, 5e8, 62.5e6)}.get(bits, (3, 0.0, 125e6))
    if timebase < first:
        return None
    powers = first + 3 if doubled else first
    return 2 ** (timebase - first) / doubled if timebase < powers else (timebase - powers + 1) / behind_hz


class Outputs(GeneratorBox):
    """The generator. The output stage is that of all generators here, with less volts and 600 ohm."""

    models = GENERATORS
    usual = SPECIMEN

    def _parameters(self) -> dict[str, Parameter]:
        own: dict[str, Parameter] = {
            "phase": Number(0, 2**32 - 1, 0, integer=True),
            "source": Number(0, 4, 0, integer=True),
            "filter": Choice(("OFF",), "OFF"),
            "function": Choice(("SIN", "SQU", "TRI", "RAMP", "DC", "ARB"), "DC"),
            "load": Number(1, 10e3, INFINITY, "OHM", infinite=True),
        }
        return {**super()._parameters(), **own}

    def _check(self, s: Settings) -> None:
        """Refuse nothing: a call that asks for what the output cannot give was answered with a status before."""

    def sync(self, channel: int) -> bool:
        """True: the block that started it has its record."""
        return True

    def drive(self, channel: int, load_ohm: float = 50.0) -> Drive:
        """Return what the output plays at a load, through the 600 ohm of its source."""
        found = super().drive(channel, float("inf"))
        return replace(found, levels=found.levels * np.float32(_share(load_ohm)))

    def span(self, channel: int, load_ohm: float, whole: bool) -> tuple[float, float]:
        """Lowest and highest V at the load; see GeneratorBox.span."""
        low, high = super().span(channel, float("inf"), whole)
        return low * _share(load_ohm), high * _share(load_ohm)

    def _rate(self, s: Settings, points: int) -> float:
        return DAC_HZ * s.number("phase") / 2**32 * self.data.samples

    def begin(self, source: int) -> bool:
        """Something that may start the generator happened; return whether it did."""
        s = self._channels[1]
        started = s.flag("burst") and s.number("source") == source and s.flag("output")
        if started:
            self._fire((1,))
        return started

    def _table(self) -> Iterator[Command]:
        yield Command("SIGG:ARB", get=self._arbitrary)
        yield Command("SIGG:BUIL", get=self._built_in)
        yield Command("SIGG:PHAS", get=self._phase)
        yield Command("SIGG:SIZE", get=lambda call: f"{OK},{self.data.samples}")
        yield Command("SIGG:SOFT", get=self._started)

    def _started(self, call: Call) -> str:
        if _whole(call, 1)[0]:
            self.begin(SOFT)
        return f"{OK}"

    def _phase(self, call: Call) -> str:
        hertz, count = (number(token, "") for token in call.take(2, 2))
        phase = round(hertz * count / self.data.samples / DAC_HZ * 2**32)
        return f"{OK},{phase}" if 0 < phase < 2**32 and hertz * count <= DAC_HZ else f"{NO_FREQUENCY}"

    def _arbitrary(self, call: Call) -> str:
        *head, codes = call.take(7, 7)
        offset, vpp, phase, shots, kind, source = (round(number(token, "")) for token in head)
        if not isinstance(codes, Block) or not self.data.least <= len(codes.data) // 2 <= self.data.samples:
            return f"{NO_WAVE}"
        record = np.maximum(np.frombuffer(codes.data, "<i2"), -32767).astype("<i2")
        self._memory[1].replace("CODES", dac_codes(Block(memoryview(record.tobytes())), swapped=True))
        return self._set(offset, vpp, "ARB", shots, kind, source, phase=phase, arb="CODES")

    def _built_in(self, call: Call) -> str:
        offset, vpp, wave, hertz, shots, kind, source = (number(token, "") for token in call.take(7, 7))
        shape = WAVES[int(wave)] if 0 <= wave < len(WAVES) else ""
        if not shape:
            return f"{NO_WAVE}"
        frequency: dict[str, Value] = {} if shape == "DC" else {"frequency": hertz}
        return self._set(round(offset), round(vpp), shape, round(shots), round(kind), round(source), **frequency)

    def _set(self, offset: int, vpp: int, shape: str, shots: int, kind: int, source: int, **more: Value) -> str:
        if abs(offset) + vpp / 2 > REACH_UV + 1:
            return f"{OVER_VOLTAGE}"
        if source not in (FREE, SCOPE, SOFT) or kind:
            return f"{TRIGGER_SOURCE}"
        silent = not offset and (shape == "DC" or not vpp)
        waits: dict[str, Value] = {
            "burst": source != FREE,
            "cycles": shots or INFINITY,
            "trigger": "BUS" if source != FREE else "IMM",
        }
        before = {1: self.on(1)}
        levels: dict[str, Value] = {"offset": offset * 1e-6, "vpp": vpp * 1e-6, "function": shape, "output": not silent}
        self._channels[1].change(**levels, **waits, source=source, **more)
        self._report_switched(before)
        return f"{OK}"


class Inputs(ScopeBox):
    """The inputs."""

    models = SCOPES
    usual = SPECIMEN
    channel_count = 2

    def __init__(self, serial: str | None = None, *, begin: Callable[[int], bool], **more: object) -> None:
        self._begin = begin
        super().__init__(serial, **more)  # type: ignore[arg-type]
        self._finest = self._bits

    def _box_parameters(self) -> dict[str, Parameter]:
        return {
            "resolution": Number(0, 2, 0, integer=True),
            "triggered": Flag(),
            "rate": Number(1e-3, ADC_HZ, 125e6),
            "start": Number(-1e3, 1e3, 0, "S"),
            "points": Number(1, self.data.memory, 1000, integer=True),
            "sweep": Choice(("NORMal", "AUTO"), "NORM"),
            "trigger_source": Choice(("CHANnel1", "CHANnel2", "EXT"), "EXT"),
            "level_EXT": Number(1, 1, 1, "V"),  # the beginning of the generator's record has no level
            "level_CHAN1": Number(-20, 20, 0, "V"),
            "level_CHAN2": Number(-20, 20, 0, "V"),
            "slope": Choice(("POSitive", "NEGative"), "POS"),
            "type": Choice(("NORMal",), "NORM"),
            "count": Number(1, 1, 1, integer=True),
        }

    def _channel_parameters(self, n: int) -> dict[str, Parameter]:
        return {
            "display": Flag(),
            "range": Number(2 * RANGES[0], 2 * RANGES[-1], 2 * RANGES[-1], "V"),
            "offset": Number(-20, 20, 0, "V"),
            "coupling": Choice(("DC", "AC"), "DC"),
            "invert": Flag(),
        }

    @property
    def bits(self) -> int:
        """Bits of the converter, as it was told."""
        return RESOLUTIONS[int(self._box.number("resolution"))]

    @property
    def largest(self) -> int:
        """The code at the end of a range."""
        return 32512 if self.bits == 8 else 32767

    def resolve(self, resolution: int) -> int:
        """Convert with other bits from now on; return a status."""
        if resolution not in RESOLUTIONS:
            return NO_RESOLUTION
        self._box.change(resolution=float(resolution))
        self._bits = min(self._finest, self.bits)
        return OK

    def _sampling(self) -> Sampling:
        return Sampling(self._box.number("rate"), int(self._box.number("points")), 1)

    def window(self) -> Window:
        """The instants of the next block."""
        return self._sampling().window(self._box.number("start"))

    def _table(self) -> Iterator[Command]:
        yield Command("CHAN:SET", get=self._channel)
        yield Command("TRIG:SIMP", get=self._simple)
        yield Command("BLOC:TIM", get=self._timebase)
        yield Command("BLOC:SEGM", get=lambda call: f"{OK},{self.data.memory // max(1, _whole(call, 1)[0])}")
        yield Command("BLOC:RUN", get=self._run)
        yield Command("BLOC:READ", get=lambda call: f"{OK},{int(self._polled() == 'stopped')}")
        yield Command("BLOC:VAL", get=self._values)
        yield Command("BLOC:OVER", get=self._overflow)
        yield Command("BLOC:STOP", get=self._stopped)
        yield Command("UNIT:RES", get=lambda call: f"{self.resolve(_whole(call, 1)[0])}")
        yield Command("UNIT:MAX", get=lambda call: f"{OK},{self.largest}")

    def _stopped(self, call: Call) -> str:
        self._stop()
        return f"{OK}"

    def _channel(self, call: Call) -> str:
        channel, on, coupling, which, offset_v = (number(token, "") for token in call.take(5, 5))
        if channel + 1 not in self._channels:
            return f"{BAD_CHANNEL}"
        if not 0 <= which < len(RANGES):
            return f"{BAD_RANGE}"
        self._channels[int(channel) + 1].change(
            display=bool(on), coupling="DC" if coupling else "AC", range=2 * RANGES[int(which)], offset=-offset_v
        )
        return f"{OK}"

    def _simple(self, call: Call) -> str:
        on, source, level, direction, _, automatic_ms = _whole(call, 6)
        if on and source + 1 not in self._channels:
            return f"{BAD_CHANNEL}"
        self._box.change(triggered=bool(on), sweep="AUTO" if automatic_ms else "NORM")
        if on:
            s, name = self._channels[source + 1], f"CHAN{source + 1}"
            volts = level / self.largest * s.number("range") / 2 + s.number("offset")
            edge: dict[str, Value] = {"trigger_source": name, "slope": "NEG" if direction == 3 else "POS"}
            self._box.change(**edge, **{f"level_{name}": volts})
        return f"{OK}"

    def _timebase(self, call: Call) -> str:
        timebase, samples = _whole(call, 2)
        step_s = interval_s(timebase, self.bits)
        if step_s is None or samples > self.data.memory:
            return f"{BAD_TIMEBASE}"
        return f"{OK},{step_s * 1e9:.9g},{self.data.memory}"

    def _run(self, call: Call) -> str:
        """Arm; a block without a trigger begins at once, and the generator with it if it waits for that."""
        before, behind, timebase = _whole(call, 3)
        step_s = interval_s(timebase, self.bits)
        if step_s is None:
            return f"{BAD_TIMEBASE}"
        if min(before, behind) < 0 or not 0 < before + behind <= self.data.memory:
            return f"{TOO_MANY}"
        triggered = self._box.flag("triggered")
        self._box.change(rate=1 / step_s, start=-before * step_s, points=float(before + behind))
        if not triggered:
            self._box.change(trigger_source="EXT", slope="POS", sweep="NORM")
        self._arm("single", frozenset())
        if not triggered and not self._begin(SCOPE):
            self._force()
        return f"{OK}"

    def _values(self, call: Call) -> str | bytes:
        channel, first, count = _whole(call, 3)
        record = self._records.get(channel + 1)
        if record is None or self._polled() != "stopped":
            return f"{NONE_YET}"
        codes = np.rint(record.words[first : first + count] * (self.largest / 32768)).astype("<i2")
        return f"{OK},".encode() + blocked(codes.tobytes())

    def _overflow(self, call: Call) -> str:
        over = (n for n, record in self._records.items() if record.words.min() <= LOW or record.words.max() >= HIGH)
        return f"{OK},{sum(1 << (n - 1) for n in over)}"


class PicoScope(BothRoles):
    """A simulated PicoScope 5000D with two inputs.

    Args:
        serial: of this specimen.
        model: "5242D" to "5444D"; they differ in the memory of the generator.
        usb_power: it has no power supply of its own, and says so when it is opened.
        lock: of the bench; boxes that are wired together share one.
        adc_bits: a coarser converter, 8 to 14 bits, whatever it is told to use.
        pace: seconds of waiting per second of signal; 0 plays at once.
        clock: seconds, monotonic.
    """

    _out: Outputs
    _in: Inputs

    def __init__(
        self,
        serial: str = SPECIMEN[1],
        *,
        model: str = SPECIMEN[0],
        usb_power: bool = False,
        lock: threading.Condition | None = None,
        adc_bits: int | None = None,
        pace: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = lock or threading.Condition()
        self._out = Outputs(serial, model=model, lock=self._lock, pace=pace, clock=clock)
        self._in = Inputs(
            serial, begin=self._out.begin, model=model, lock=self._lock, adc_bits=adc_bits, pace=pace, clock=clock
        )
        self.model, self._serial, self._usb_power = model, serial, usb_power
        scpi = Scpi(
            self._table(), identity=("Pico Technology", model, serial, ""), lock=self._lock,
            operations=self._out._operations, reset=lambda: None, trigger=lambda: None,
        )  # fmt: skip
        self._join(scpi)
        self._built: tempfile.TemporaryDirectory[str] | None = None

    def library(self) -> str:
        """Compile the library that speaks to simulated PicoScopes; return its path. Raises: ConfigError: no C compiler."""
        compiler, source = shutil.which("cc"), Path(__file__).with_name("ps5000a.c")
        if compiler is None:
            raise ConfigError(
                "a simulated PicoScope is reached through a library in C", where="virtual bench", got="no compiler cc",
                todo="install one, as with: apt install gcc",
            )  # fmt: skip
        if self._built is None:
            self._built = tempfile.TemporaryDirectory(prefix="hil-ps5000a-")
        path = Path(self._built.name, "libps5000a.so")
        if not path.exists():
            how = [compiler, "-shared", "-fPIC", "-O1", f"-Wl,-Bsymbolic,-soname,{SONAME}", "-o", str(path), str(source)]
            done = subprocess.run(how, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ConfigError("the library of a simulated PicoScope was not compiled", where="virtual bench",
                                  got=done.stderr[:300], todo="see what the compiler says")  # fmt: skip
        return str(path)

    # -- Box ----------------------------------------------------------------------------------------------------------

    def outputs(self) -> dict[str, object]:
        """Return whether the output gives anything but 0 V, and its lowest and highest level in V."""
        return {"1": super().outputs()["1"]}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot; see BothRoles.restore."""
        super().restore(state)
        self._in.resolve(int(self._in._box.number("resolution")))

    def execute(self, message: Message) -> bytes | None:
        """Carry out a call of the library; one that makes no sense is answered with a status too."""
        return super().execute(message) or f"{BAD_PARAMETER}".encode()

    # -- Calls of the library -------------------------------------------------------------------------------------------

    def _table(self) -> Iterator[Command]:
        yield from self._out._table()
        yield from self._in._table()
        yield Command("UNIT:OPEN", get=self._open)
        yield Command("UNIT:CLOS", get=self._close)
        yield Command("UNIT:PING", get=lambda call: f"{OK}")
        yield Command("UNIT:POW", get=self._power)
        yield Command("UNIT:INF", get=self._info)

    def _open(self, call: Call) -> str:
        """Begin anew: 0 V, inputs on."""
        self._close(call)
        status = self._in.resolve(_whole(call, 1)[0])
        for s in self._in._channels.values():
            s.change(display=True)
        return f"{ON_USB if self._usb_power and status == OK else status}"

    def _close(self, call: Call) -> str:
        self._out._reset()
        self._in._reset()
        return f"{OK}"

    def _power(self, call: Call) -> str:
        return f"{OK}" if self._usb_power and _whole(call, 1)[0] == ON_USB else f"{NO_SUCH_POWER}"

    def _info(self, call: Call) -> str:
        told = {0: "2.1.0 simulated", 1: "2.0", 2: "1", 3: self.model, 4: self._serial, 6: "1.0"}
        which = _whole(call, 1)[0]
        return f"{OK},{told[which]}" if which in told else f"{BAD_INFO}"


def _share(load_ohm: float) -> float:
    """Share of the open-circuit voltage that is left at a load."""
    return 1.0 if load_ohm >= 0.99 * INFINITY else load_ohm / (load_ohm + SOURCE_OHM)


def _whole(call: Call, count: int) -> list[int]:
    try:
        return [round(number(token, "")) for token in call.take(count, count)]
    except OverflowError as error:
        raise ScpiError(-222, "not finite") from error
