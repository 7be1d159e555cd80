r"""Simulated Red Pitaya STEMlab 125-14 as its SCPI server has it: two outputs, two inputs, one conversation.

    SOUR1:TRAC:DATA:DATA 0.1,0.2,...      text, -1 to 1, 16,384 numbers at most; one period of SOUR1:FREQ:FIX
    SOUR1:VOLT 0.5                        the amplitude to one side, V into 50 ohm; with the offset up to 1 V
    SOUR1:TRIG:INT, SOUR:TRIG:INT         play, if the output is on; ACQ:TRIG AWG_PE waits for that start
    ACQ:SOUR1:DATA:OLD:N? 100             {0.1,0.2,...}, or #<d><bytes><big-endian float32 or int16> after ACQ:DATA:FORMAT BIN
    oldest sample = trigger + DLY - 8192  of a buffer of 16,384, 125 MHz / DEC apart

Messages end with \r\n. *RST does nothing. Numbers are answered with six digits. There is no bit for a power cut. Not simulated:
averaging of what decimation leaves out, DMA, sweeps, sequences, digital and slow pins but AOUT0 to 3.

Source: github.com/RedPitaya/RedPitaya, scpi-server/src; Red Pitaya documentation 2.07, "SCPI commands".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from sim_devices.instruments.both_roles import BothRoles
from sim_devices.instruments.box import Message
from sim_devices.instruments.generator_box import GeneratorBox
from sim_devices.instruments.generator_box import Model as GeneratorModel
from sim_devices.instruments.parameters import Choice, Flag, Number, Parameter, numbers
from sim_devices.instruments.program_message import ScpiError, blocked
from sim_devices.instruments.sampling import Sampling, Window
from sim_devices.instruments.scope_box import Model as ScopeModel
from sim_devices.instruments.scope_box import ScopeBox
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings, setting
from sim_devices.instruments.volatile_memory import from_fractions

CLOCK_HZ, BUFFER, RECORD = 125e6, 16_384, "ARBITRARY"
G6 = ".6g"
MODEL = "STEMlab 125-14"
SPECIMEN = (MODEL, "SIM-PITAYA")
GENERATORS = {MODEL: GeneratorModel(CLOCK_HZ, CLOCK_HZ, 14, 1 << 20, 1, 62.5e6)}
SCOPES = {MODEL: ScopeModel("INSTR2025", CLOCK_HZ, BUFFER, 14)}
SHAPES = {"SINE": "SIN", "SQUARE": "SQU", "TRIANGLE": "TRI", "SAWU": "RAMP", "DC": "DC", RECORD: "ARB"}
TRIGGERS = ("DISABLED", "NOW", "CH1_PE", "CH1_NE", "CH2_PE", "CH2_NE", "EXT_PE", "EXT_NE", "AWG_PE", "AWG_NE")
FULL_RANGE = {"LV": 2.0, "HV": 40.0}


class Outputs(GeneratorBox):
    """The outputs. The output stage is that of all generators here, with less volts."""

    models = GENERATORS
    usual = SPECIMEN

    def _parameters(self) -> dict[str, Parameter]:
        own: dict[str, Parameter] = {
            "wave": Choice(tuple(SHAPES), "SINE"),
            "mode": Choice(("CONTINUOUS", "BURST"), "CONTINUOUS"),
            "source": Choice(("INT", "EXT_PE", "EXT_NE", "GATED"), "INT"),
            "repetitions": Number(1, 50_000, 1, integer=True),
            "filter": Choice(("OFF",), "OFF"),
            "vpp": Number(0, 20, 2, "V"),
            "frequency": Number(0, 62.5e6, 1e3, "HZ", style=G6),
            "cycles": Number(1, 50_000, 1, integer=True),
        }
        return {**super()._parameters(), **own}

    def _check(self, s: Settings) -> None:
        """Amplitude and offset together stay inside 1 V."""
        if abs(s.number("offset")) + s.number("vpp") / 2 > 1 + 1e-9:
            raise ScpiError(-222, "amplitude and offset beyond 1 V")

    def sync(self, channel: int) -> bool:
        """True: each start is seen by ACQ:TRIG AWG_PE."""
        return True

    def _rate(self, s: Settings, points: int) -> float:
        return s.number("frequency") * points

    def fire(self, channels: tuple[int, ...]) -> None:
        """Play what is in bursts, triggered from inside, on outputs that are on."""
        ready = tuple(n for n in channels if self._channels[n].text("source") == "INT" and self._channels[n].flag("output"))
        self._fire(ready)

    def switch(self, channels: tuple[int, ...], on: bool) -> None:
        """OUTPUT:STATE."""
        before = {n: self._channels[n].flag("output") for n in channels}
        for n in channels:
            self._channels[n].change(output=on)
        self._report_switched(before)

    def keep(self, channel: int, codes: np.ndarray) -> None:
        """Keep a record."""
        self._memory[channel].replace(RECORD, codes)
        self._channels[channel].change(arb=RECORD)

    def record(self, channel: int) -> np.ndarray:
        """The record of a channel, -1 to 1."""
        return self._memory[channel][self._channels[channel].text("arb")] / 32767

    def reset(self) -> None:
        """GEN:RST."""
        self._reset()
        for s in self._channels.values():
            s.change(limits=False)

    def _table(self) -> Iterator[Command]:
        of = self._of
        for pattern, name in (
            ("FREQ:FIX", "frequency"), ("PHAS", "phase"), ("BURS:NCYC", "cycles"), ("BURS:NOR", "repetitions"),
            ("TRIG:SOUR", "source"), ("BURS:STAT", "mode"),
        ):  # fmt: skip
            yield setting(f"SOUR<2>:{pattern}", name, of, self._sources if name in ("source", "mode") else None)
        yield Command("SOUR<2>:FUNC", self._put_wave, lambda call: of(call).text("wave"))
        yield Command("SOUR<2>:VOLT", self._put_amplitude, lambda call: f"{of(call).number('vpp') / 2:{G6}}")
        yield Command("SOUR<2>:VOLT:OFFS", self._put_offset, lambda call: f"{of(call).number('offset'):{G6}}")
        yield Command("SOUR<2>:TRAC:DATA:DATA", self._put_record, self._record)
        yield Command("SOUR<2>:TRIG:INT", lambda call: self.fire((call.channel,)))
        yield Command("GEN:RST", lambda call: self.reset())
        yield Command("PHAS:ALIGN", lambda call: self.fire((1, 2)))
        yield Command("OUTPUT<2>:STATE", self._put_output, lambda call: "ON" if self.on(call.channel) else "OFF")

    def _put_wave(self, call: Call) -> None:
        word = str(self._of(call).read("wave", call.only()))
        self._of(call).change(wave=word, function=SHAPES[word])

    def _sources(self, call: Call) -> None:
        """Let what starts a channel follow its mode and its source."""
        s = self._of(call)
        burst, inside = s.text("mode") == "BURST", s.text("source") == "INT"
        s.change(burst=burst, trigger="IMM" if not burst else "BUS" if inside else "EXT")

    def _put_amplitude(self, call: Call) -> None:
        s = self._of(call)
        s.change(vpp=2 * Number(0, 1, 1, "V").read(call.only()))

    def _put_offset(self, call: Call) -> None:
        self._of(call).change(offset=Number(-1, 1, 0, "V").read(call.only()))

    def _put_record(self, call: Call) -> None:
        shares = numbers(call.take(1, BUFFER))
        self.keep(call.channel, from_fractions(shares))

    def _record(self, call: Call) -> str:
        call.none()
        return "{" + ",".join(f"{share:.6g}" for share in self.record(call.channel).tolist()) + "}"

    def _put_output(self, call: Call) -> None:
        self.switch((call.channel,), Flag().read(call.only()))


class Inputs(ScopeBox):
    """The inputs."""

    models = SCOPES
    usual = SPECIMEN
    channel_count = 2

    def _box_parameters(self) -> dict[str, Parameter]:
        return {
            "decimation": Number(1, 65_536, 1, integer=True, style=G6),
            "averaging": Choice(("ON", "OFF"), "ON"),
            "delay": Number(-BUFFER, 1 << 30, 0, integer=True, style=G6),
            "level": Number(-20, 20, 0, "V", style=G6),
            "hysteresis": Number(0, 1, 0.005, "V", style=G6),
            "units": Choice(("RAW", "VOLTS"), "VOLTS"),
            "format": Choice(("BIN", "ASCII"), "ASCII"),
            "trigger": Choice(TRIGGERS, "DISABLED"),
            "trigger_source": Choice(("CHANnel1", "CHANnel2", "EXT"), "EXT"),
            "level_EXT": Number(1, 1, 1, "V"),  # the generator's start has no level
            "level_CHAN1": Number(-20, 20, 0, "V"),
            "level_CHAN2": Number(-20, 20, 0, "V"),
            "slope": Choice(("POSitive", "NEGative"), "POS"),
            "sweep": Choice(("NORMal",), "NORM"),
            "type": Choice(("NORMal",), "NORM"),
            "count": Number(1, 1, 1, integer=True),
        }

    def _channel_parameters(self, n: int) -> dict[str, Parameter]:
        return {
            "gain": Choice(("LV", "HV"), "LV"),
            "range": Number(2, 40, FULL_RANGE["LV"], "V"),
            "offset": Number(0, 0, 0, "V"),
            "coupling": Choice(("DC",), "DC"),
            "invert": Flag(),
        }

    def wanted(self) -> frozenset[int]:
        """Both inputs are always recorded."""
        return frozenset((1, 2))

    def _sampling(self) -> Sampling:
        return Sampling(CLOCK_HZ / self._box.number("decimation"), BUFFER, 1)

    def window(self) -> Window:
        """The instants of the buffer."""
        rate_hz = CLOCK_HZ / self._box.number("decimation")
        return Window((self._box.number("delay") - BUFFER // 2) / rate_hz, rate_hz, BUFFER)

    def reset(self) -> None:
        """ACQ:RST."""
        self._reset()

    def start(self, call: Call) -> None:
        """ACQ:START: writes into the buffer; triggers come after ACQ:TRIG."""
        call.none()
        self._forget()
        self._mode, self._events = "stopped", {"armed": True, "triggered": False}

    def wait_for(self, call: Call) -> None:
        """ACQ:TRIG: wait for an edge, or take what is there now."""
        word = str(self._box.read("trigger", call.only()))
        self._box.change(trigger=word)
        if word == "DISABLED" or not self._events["armed"]:
            return
        edge = word.rpartition("_")
        source = {"CH1": "CHAN1", "CH2": "CHAN2"}.get(edge[0], "EXT")
        self._box.change(trigger_source=source, slope="POS" if edge[2] == "PE" else "NEG")
        self._arm("single", frozenset())
        if word == "NOW":
            self._force()

    def status(self, call: Call) -> str:
        """ACQ:TRIG:STAT?"""
        call.none()
        return "TD" if self._polled() == "stopped" else "WAIT"

    def filled(self, call: Call) -> str:
        """ACQ:TRIG:FILL?"""
        call.none()
        return f"{int(self._polled() == 'stopped' and self._events['triggered'])}"

    def samples(self, n: int, first: int, count: int) -> str | bytes:
        """Samples of the buffer, from the oldest one on, as text or as a block."""
        record = self._records.get(n)
        words = np.zeros(BUFFER, np.int16) if record is None else record.words
        if not (0 <= first < BUFFER and 0 < count <= BUFFER):
            raise ScpiError(-222, f"{count} of {BUFFER} samples")
        part = np.take(words, np.arange(first, first + count) % BUFFER)
        span_v = self._span_v(self._channels[n])
        raw = self._box.text("units") == "RAW"
        values = part >> 2 if raw else part * (span_v / 65536)
        if self._box.text("format") == "ASCII":
            return "{" + ",".join(f"{value}" if raw else f"{value:.6g}" for value in values.tolist()) + "}"
        data = values.astype(">i2" if raw else ">f4").tobytes()
        return blocked(data)

    def _table(self) -> Iterator[Command]:
        for pattern, name in (
            ("ACQ:DEC", "decimation"), ("ACQ:DEC:Factor", "decimation"), ("ACQ:AVG", "averaging"), ("ACQ:TRIG:DLY", "delay"),
            ("ACQ:TRIG:LEV", "level"), ("ACQ:TRIG:HYST", "hysteresis"), ("ACQ:DATA:UNITS", "units"),
            ("ACQ:DATA:FORMAT", "format"),
        ):  # fmt: skip
            yield setting(pattern, name, self._the_box, self._levels if name == "level" else None)
        yield setting("ACQ:SOUR<2>:GAIN", "gain", self._of, self._ranged)
        yield Command("ACQ:RST", lambda call: self.reset())
        yield Command("ACQ:START", self.start)
        yield Command("ACQ:STOP", lambda call: self._stop())
        yield Command("ACQ:TRIG", self.wait_for)
        yield Command("ACQ:TRIG:STAT", get=self.status)
        yield Command("ACQ:TRIG:FILL", get=self.filled)
        yield Command("ACQ:TPOS", get=lambda call: f"{BUFFER // 2}")
        yield Command("ACQ:WPOS", get=lambda call: "0")
        yield Command("ACQ:BUF:SIZE", get=lambda call: f"{BUFFER}")
        yield Command("ACQ:SRATe", get=lambda call: f"{CLOCK_HZ / self._box.number('decimation'):9.0f} Hz")
        yield Command("ACQ:SOUR<2>:DATA", get=lambda call: self.samples(call.channel, 0, BUFFER))
        yield Command("ACQ:SOUR<2>:DATA:OLDest:N", get=lambda call: self.samples(call.channel, 0, _whole(call, 0)))
        yield Command(
            "ACQ:SOUR<2>:DATA:LATest:N", get=lambda call: self.samples(call.channel, BUFFER - _whole(call, 0), _whole(call, 0))
        )
        yield Command("ACQ:SOUR<2>:DATA:STArt:N", get=lambda call: self.samples(call.channel, _whole(call, 0), _whole(call, 1)))

    def _levels(self, call: Call) -> None:
        level = self._box.number("level")
        self._box.change(level_CHAN1=level, level_CHAN2=level)

    def _ranged(self, call: Call) -> None:
        s = self._of(call)
        s.change(range=FULL_RANGE[s.text("gain")])


class RedPitaya(BothRoles):
    """A simulated STEMlab 125-14.

    Args:
        serial: of this specimen; the server does not tell it.
        lock: of the bench; boxes that are wired together share one.
        adc_bits: 8 to 14 instead of 14.
        pace: seconds of waiting per second of signal for ``*OPC?``; 0 plays at once.
        clock: seconds, monotonic.
    """

    terminator = b"\r\n"
    _out: Outputs
    _in: Inputs

    def __init__(
        self,
        serial: str = SPECIMEN[1],
        *,
        lock: threading.Condition | None = None,
        adc_bits: int | None = None,
        pace: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = lock or threading.Condition()
        self._out = Outputs(serial, lock=self._lock, pace=pace, clock=clock)
        self._in = Inputs(serial, lock=self._lock, adc_bits=adc_bits, pace=pace, clock=clock)
        self._slow = Settings({f"aout{k}": Number(0, 1.8, 0, "V", style=G6) for k in range(4)})
        self.model = MODEL
        scpi = Scpi(
            self._table(), identity=("REDPITAYA", "INSTR2025", "", "01-21"), lock=self._lock,
            operations=self._out._operations, reset=lambda: None, trigger=self._no_trigger, plus=False,
        )  # fmt: skip
        scpi.status.event = 0  # the parser of the server has no bit for a power cut
        self._join(scpi)

    def _no_trigger(self) -> None:
        raise ScpiError(-113, "*TRG")

    # -- Box ----------------------------------------------------------------------------------------------------------

    def reboot(self) -> None:
        """Lose power for a moment; nothing tells it."""
        super().reboot()
        self._scpi.status.clear()

    def snapshot(self) -> dict[str, object]:
        """Return settings, records and status as JSON values, those of the slow outputs among them."""
        return {**super().snapshot(), "slow": self._slow.snapshot()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot; see BothRoles.restore."""
        super().restore(state)
        self._slow.restore(state["slow"])

    # -- Commands -----------------------------------------------------------------------------------------------------

    def execute(self, message: Message) -> bytes | None:
        """Run one message; see `Box.execute`. Two commands without a number are for both outputs."""
        words = bytes(message).upper().split()
        if words[:1] == [b"SOUR:TRIG:INT"] or words in ([b"OUTPUT:STATE", b"ON"], [b"OUTPUT:STATE", b"OFF"]):
            with self._lock:
                if len(words) == 1:
                    self._out.fire((1, 2))
                else:
                    self._out.switch((1, 2), words[1] == b"ON")
            return None
        return super().execute(message)

    def _table(self) -> Iterator[Command]:
        yield from self._out._table()
        yield from self._in._table()
        yield Command("SYSTem:BRD:ID", get=lambda call: "0")
        yield Command("SYSTem:BRD:Name", get=lambda call: f"{MODEL} v1.1")
        yield Command("ANALOG:RST", lambda call: self._slow.reset())
        yield Command("ANALOG:PIN", self._put_pin, self._pin)

    def _put_pin(self, call: Call) -> None:
        pin, value = call.take(2, 2)
        name = str(pin).lower()
        if name not in self._slow.snapshot():
            raise ScpiError(-224, str(pin)[:24])
        self._slow.change(**{name: self._slow.read(name, value)})

    def _pin(self, call: Call) -> str:
        name = call.word().lower()
        if name.startswith("ain"):
            return "0"
        if name not in self._slow.snapshot():
            raise ScpiError(-224, name[:24])
        return f"{self._slow.number(name):{G6}}"


def _whole(call: Call, place: int) -> int:
    return int(Number(0, BUFFER, 1, integer=True).read(call.take(place + 1, 2)[place]))
