"""Keysight 33500B and 33600A waveform generators: one channel, arbitrary records, triggered by the bus.

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


class Keysight33600(ScpiOutput):
    """One channel of the generator. The constructor resets it: output off, volatile memory empty.

    Args:
        scpi: an open conversation with the instrument, or a Link. This object owns and closes it, also when it raises.
        channel: 1 or 2.
        load_ohm: what is connected; infinite, or "HighZ" in a file, for high impedance.
        low_v, high_v: narrower limits of the drive, V. They also set amplitude and offset, so all codes are used.
        dac_bits: round codes to so many bits; None leaves the rounding to the instrument.
        memory_samples: a smaller memory than the model's, or the larger one of the memory option.
        slew_v_per_s: before it is switched off, the drive goes down no faster than this; None: off at once.

    Raises:
        WrongInstrument: not one of MODELS. OutOfRange: limits wider than the instrument's.
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
        self._scpi = scpi if isinstance(scpi, Scpi) else Scpi(scpi)
        self._channel, self._source, self._output = channel, f":SOUR{channel}", f":OUTP{channel}"
        self._called = f"generator channel {channel}"
        self._load_ohm = load_ohm
        self._settings: dict[str, float | str] = {}
        self._on: bool | None = None  # the output; None: not known
        self._closed = False
        self._panel = Panel(
            self._scpi, self._called, self._held(), self._beyond, lock=":SYST:LOCK:REQ?", unlock=":SYST:LOCK:REL"
        )  # fmt: skip
        try:
            self._port = _port(self._called, load_ohm, low_v, high_v)
            self._amplitude_vpp, self._offset_v = _full_scale(self._port, load_ohm)
            self._dac_bits = _checked_bits(dac_bits)
            self._ramp = None if slew_v_per_s is None else self._ramp_at(slew_v_per_s)
            self.identity = self._scpi.identify()
            model = _model(self.identity)
            self._scpi.send("*RST", "*CLS")
        except BaseException:
            self._scpi.close()
            raise
        self.memory = model.memory if memory_samples is None else Memory(model.memory.least, memory_samples)
        self.highest_rate_hz = model.rate_hz

    @property
    def drive(self) -> Port:
        """Limits of what may be driven, V."""
        return self._port

    @property
    def panel(self) -> Panel:
        """The settings that are read back from the instrument."""
        return self._panel

    def held(self) -> dict[str, Value]:
        """Ask the instrument for its settings, by name, in one message."""
        return self._panel.held()

    def _held(self) -> tuple[Setting, ...]:
        """Return all settings that volts, timing and limits rest on."""
        source, output, n = self._source, self._output, self._channel
        return (
            Setting(OUTPUT, f"{output}?", "flag"),
            Setting("polarity", f"{output}:POL?", "word"),
            Setting("load", f"{output}:LOAD?", unit="ohm"),
            Setting("unit of the amplitude", f"{source}:VOLT:UNIT?", "word"),
            Setting("amplitude", f"{source}:VOLT?", unit="Vpp", tolerance=1e-6),
            Setting("offset", f"{source}:VOLT:OFFS?", unit="V", tolerance=1e-6),
            Setting("high limit", f"{source}:VOLT:LIM:HIGH?", unit="V", tolerance=1e-6),
            Setting("low limit", f"{source}:VOLT:LIM:LOW?", unit="V", tolerance=1e-6),
            Setting("limits", f"{source}:VOLT:LIM:STAT?", "flag"),
            Setting("function", f"{source}:FUNC?", "word"),
            Setting("filter", f"{source}:FUNC:ARB:FILT?", "word"),
            Setting("sample rate", f"{source}:FUNC:ARB:SRAT?", unit="Sa/s"),
            Setting("burst", f"{source}:BURS:STAT?", "flag"),
            Setting("burst mode", f"{source}:BURS:MODE?", "word"),
            Setting("burst cycles", f"{source}:BURS:NCYC?"),
            Setting("trigger source", f":TRIG{n}:SOUR?", "word"),
            Setting("trigger delay", f":TRIG{n}:DEL?", unit="s", tolerance=1e-12),
            Setting("sync output", ":OUTP:SYNC?", "flag"),
            Setting("sync source", ":OUTP:SYNC:SOUR?", "word"),
            Setting("byte order", ":FORM:BORD?", "word"),
        )

    def _beyond(self, held: Mapping[str, Value]) -> str:
        """Say why the volts may be outside of the limits: they are those at the load that is really there."""
        load, amplitude, offset, unit = (held[name] for name in ("load", "amplitude", "offset", "unit of the amplitude"))
        if unit != "VPP" or isinstance(load, str) or isinstance(amplitude, str) or isinstance(offset, str):
            return f"how far the drive reaches cannot be told: amplitude {amplitude} {unit}, offset {offset}, load {load}"
        factor = _limit_v(self._load_ohm) / _limit_v(_load(load))
        swing, offset = 0.5 * amplitude * factor, offset * factor
        slack = LEVEL_SLACK * (self._port.shared_high - self._port.shared_low)
        if self._port.shared_low - slack <= offset - swing and offset + swing <= self._port.shared_high + slack:
            return ""
        return (
            f"the drive may reach {offset - swing:.4g} to {offset + swing:.4g} V, where {self._port.shared_low:g} to "
            f"{self._port.shared_high:g} V are allowed"
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

    def prepare(self, sample_rate_hz: float) -> None:
        """Set everything but the record, output off; sends nothing if it is set already.

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
            "amplitude_vpp": self._amplitude_vpp,
            "offset_v": self._offset_v,
            "load_ohm": self._load_ohm,
            "trigger": "BUS",
        }
        if self._settings == wanted:
            return
        self._panel.check_output()
        self.forget()
        self._panel.left(None)
        self._scpi.send("*CLS", f"{self._output} 0", *self._levels(), *self._play_once(sample_rate_hz))
        self._scpi.check(f"setting up {self._called}", outputs="off")
        self._verify(sample_rate_hz)
        self._settings, self._on = wanted, False
        self._panel.renewed()
        self._panel.left(False)

    def _levels(self) -> tuple[str, ...]:
        """Return the commands that set the levels, each legal whatever was set before.

        No limit is set while the levels move, no offset while the amplitude does.
        """
        volts, half = f"{self._source}:VOLT", 0.5 * self._amplitude_vpp
        return (
            f"{self._output}:LOAD {'INF' if math.isinf(self._load_ohm) else f'{self._load_ohm:.6g}'}",
            f"{volts}:LIM:STAT 0",
            f"{volts}:UNIT VPP",
            f"{volts}:OFFS 0",
            f"{volts} {self._amplitude_vpp:.9g}",
            f"{volts}:OFFS {self._offset_v:.9g}",
            f"{volts}:LIM:HIGH {self._offset_v + half:.9g}",
            f"{volts}:LIM:LOW {self._offset_v - half:.9g}",
            f"{volts}:LIM:STAT 1",
        )

    def _play_once(self, sample_rate_hz: float) -> tuple[str, ...]:
        """An arbitrary record, once for each *TRG, with a SYNC pulse for the scope."""
        source = self._source
        return (
            ":FORM:BORD SWAP",
            f"{source}:FUNC ARB",
            f"{source}:FUNC:ARB:FILT OFF",
            f"{source}:FUNC:ARB:SRAT {sample_rate_hz:.12g}",
            f"{source}:BURS:MODE TRIG",
            f"{source}:BURS:NCYC 1",
            f"{source}:BURS:STAT 1",
            f":TRIG{self._channel}:SOUR BUS",
            f":OUTP:SYNC:SOUR CH{self._channel}",
            ":OUTP:SYNC 1",
        )

    def _verify(self, sample_rate_hz: float) -> None:
        """Verify what volts and timing rest on: a value that was rounded or ignored must not pass."""
        source, order = self._source, self._scpi.ask(":FORM:BORD?")
        if not order.upper().startswith("SWAP"):
            raise CommandRefused(
                "the generator did not take the byte order (:FORM:BORD)", where=self._called, got=order, allowed="SWAP",
                outputs="off", todo="every sample would be another one: update the firmware, or use another generator",
            )  # fmt: skip
        for query, wanted, unit in (
            (f"{self._output}:LOAD?", min(self._load_ohm, INFINITE), "ohm"),
            (f"{source}:VOLT?", self._amplitude_vpp, "Vpp"),
            (f"{source}:VOLT:OFFS?", self._offset_v, "V"),
            (f"{source}:FUNC:ARB:SRAT?", sample_rate_hz, "Sa/s"),
        ):
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

    def encode(self, volts: NDArray[np.float32]) -> Codes:
        """Convert volts of any shape to codes of the same shape. The caller has checked them against `drive`."""
        shift = 0 if self._dac_bits is None else 16 - self._dac_bits
        per_volt = FULL_SCALE / (0.5 * self._amplitude_vpp) / (1 << shift)
        scaled = np.multiply(volts, np.float32(per_volt), dtype=np.float32)
        if self._offset_v:
            scaled -= np.float32(self._offset_v * per_volt)
        np.rint(scaled, out=scaled)
        top = FULL_SCALE >> shift  # with fewer bits the topmost step is the last whole one below full scale
        np.clip(scaled, -top, top, out=scaled)
        codes = scaled.astype(np.int16)
        return codes if shift == 0 else np.left_shift(codes, shift, out=codes)

    def upload(self, codes: Codes) -> None:
        """Replace the record (n,) in volatile memory. Nothing is played until `trigger()`.

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
        source, link = self._source, self._scpi.link
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
                outputs=f"at rest, inside {self._port.shared_low:g} to {self._port.shared_high:g} V",
                todo="see that memory_samples is not above what the instrument has",
            )

    def trigger(self) -> None:
        """Play the record once. Does not wait for its end."""
        self._scpi.link.write(b"*TRG")

    def check(self, doing: str) -> None:
        """Raise CommandRefused if the error queue holds errors."""
        self._scpi.check(doing)

    def output(self, on: bool) -> None:
        """Switch the output, and read back that it did; sends nothing if it is so already.

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
        if self._scpi.ask_bool(f"{self._output} {int(on)};{self._output}?") is not on:
            raise CommandRefused(
                f"the output did not switch {'on' if on else 'off'}", where=self._called, outputs="unknown", todo="look at it"
            )
        self._on = on
        self._panel.left(on)

    def safe_state(self) -> SafeState:
        """Describe the safe state: output off, after the ramp if there is one, of this channel of the identified instrument."""
        who = self.identity
        return SafeState(
            "awg", self._scpi.link.name, OVER_VISA, Expect(who.maker, who.model, who.serial),
            (Step(f"{self._output} 0", f"{self._output}?", OFF),), self._ramp,
            f"unknown; if the instrument still runs, between {self._port.shared_low:g} and {self._port.shared_high:g} V",
        )  # fmt: skip

    def _ramp_at(self, slew_v_per_s: float) -> Ramp:
        volts, least = f"{self._source}:VOLT", _least_vpp(self._load_ohm)
        return Ramp(self._output, volts, f"{volts}:OFFS", slew_v_per_s, least, self._port.shared_low, self._port.shared_high)

    def _switch_off(self) -> None:
        with self._scpi.link.transaction():  # whole: nobody may switch on in between
            self.forget()
            self._panel.left(None)
            carry_out(self.safe_state(), ScpiTalk(self._scpi))
            self._on = False
            self._panel.left(False)


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
