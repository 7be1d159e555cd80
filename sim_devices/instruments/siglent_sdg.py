"""Simulated Siglent SDG1000X / SDG2000X waveform generator: two channels, arbitrary records, bursts.

    C1:BSWV AMP,8,OFST,0          several pairs, applied from left to right; what is out of range is clamped, what does not fit
                                  is ignored, and neither is said: the error queue stays empty
    C1:BSWV?                      C1:BSWV WVTP,SINE,FRQ,1000HZ,PERI,0.001S,AMP,4V,AMPVRMS,1.414Vrms,OFST,0V,HLEV,2V,LLEV,-2V,
                                  PHSE,0
    C1:WVDT WVNM,name,...,WAVEDATA,<int16...>     no block header: the rest of the message is samples

Over a raw socket a newline ends a message also among samples: what comes after it is lost, as a command that is none. Numbers
are written with six digits, frequencies with ten. SDG1000X: a record is stretched or thinned to one period of 16,384 points.
Not simulated: modulation, sweeps, harmonics, noise, PRBS, pulse.

Source: Siglent SDG Series Programming Guide PG02-E05C, 3.1 to 3.9, 3.32; clamping, formats and defaults as an SDG2042X with
firmware 2.01.01.23R7 answered (github.com/pjaako/siglent-sdg-openhtf, README.md and tests/data). SRATE and WVDT: from the
manual only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sim_devices.instruments.box import Message
from sim_devices.instruments.generator_box import GeneratorBox, Model
from sim_devices.instruments.hand import FrontPanel
from sim_devices.instruments.output_stage import divider, high_v, low_v
from sim_devices.instruments.parameters import INFINITY, Name, Number, Parameter
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Command
from sim_devices.instruments.settings import Settings
from sim_devices.instruments.status import Status
from sim_devices.instruments.timing import Timing

PERIOD, LEAST_VPP = 16_384, 2e-3
BURST_DELAY_S = 6.04035e-07  # the least, at 1 kHz
MODELS = {
    "SDG1032X": Model(150e6, 150e6, 14, 16_384, 2, 30e6),
    "SDG2042X": Model(75e6, 75e6, 16, 8_388_608, 2, 40e6),
}
WORDS: dict[str, dict[str, str]] = {  # of a setting, by its word on the wire
    "function": {"SINE": "SIN", "SQUARE": "SQU", "RAMP": "RAMP", "DC": "DC", "ARB": "ARB"},
    "polarity": {"NOR": "NORM", "INVT": "INV"},
    "trigger": {"INT": "IMM", "EXT": "EXT", "MAN": "BUS"},
    "slope": {"RISE": "POS", "FALL": "NEG"},
    "burst_mode": {"NCYC": "TRIG", "GATE": "GAT"},
    "out": {word: word for word in ("OFF", "RISE", "FALL")},
    "mode": {word: word for word in ("DDS", "TARB")},
    "inter": {word: word for word in ("LINE", "HOLD")},
}
FIELDS: dict[str, dict[str, str]] = {  # setting of each field, by header
    "OUTP": {"LOAD": "load", "PLRT": "polarity"},
    "BSWV": {"WVTP": "function", "FRQ": "frequency", "AMP": "vpp", "OFST": "offset", "PHSE": "phase",
             "HLEV": "high", "LLEV": "low"},
    "BTWV": {"STATE": "burst", "PRD": "burst_period", "STPS": "phase", "TRSR": "trigger", "TRMD": "out", "TIME": "cycles",
             "DLAY": "delay", "GATE_NCYC": "burst_mode", "EDGE": "slope"},
    "SRATE": {"MODE": "mode", "VALUE": "rate", "INTER": "inter"},
    "ARWV": {"NAME": "arb"},
}  # fmt: skip
VRMS = {"SIN": 0.3535, "SQU": 0.5, "RAMP": 1 / 3.464}


class SiglentSDG(GeneratorBox):
    """A simulated generator of the SDG-X series, as its programming guide describes it. Arguments as of GeneratorBox."""

    raw = b"WAVEDATA,"  # what follows it is bytes, up to the end of the message, where a wire marks one

    typical = Timing(2e-3, 5e6, 5e6, trigger_s=10e-3, settle_s=1e-3)  # assumed: the guide has no figures

    models = MODELS
    usual = ("SDG2042X", "SDG2XSIM0001")
    maker = "Siglent Technologies"
    firmware = "2.01.01.23R7"

    def _panel(self) -> FrontPanel:
        return FrontPanel(self, self.name)  # most of its words are not SCPI

    def _table(self) -> Iterator[Command]:
        return _undocumented()

    @property
    def status(self) -> Status:
        """Registers of the common commands."""
        return self._scpi.status

    def _parameters(self) -> dict[str, Parameter]:
        levels = {"vpp": Number(0, 20, 4, "V"), "load": Number(50, 100_000, INFINITY, "OHM", infinite=True)}
        own = {name: Name(next(iter(words))) for name, words in WORDS.items() if name in ("out", "mode", "inter")}
        return {**super()._parameters(), **levels, **own, "delay": Number(0, 100, BURST_DELAY_S, "S")}

    def _reset(self) -> None:
        super()._reset()
        for s in self._channels.values():
            s.change(limits=False, filter="OFF")

    def _bus_trigger(self) -> None:
        """``*TRG`` is not of this instrument."""

    def sync(self, channel: int) -> bool:
        """True if an edge leaves Aux In/Out at the start of this channel's record."""
        s = self._channels[channel]
        return s.text("out") == "RISE" and s.text("trigger") != "EXT"

    def _rate(self, s: Settings, points: int) -> float:
        """TrueArb: the sample rate; else a record is one period, so many points of which pass in its time."""
        return s.number("rate") if s.text("mode") == "TARB" else s.number("frequency") * points

    # -- Messages -----------------------------------------------------------------------------------------------------

    def execute(self, message: Message) -> bytes | None:
        """Run one message; see `Box.execute`. Common commands are those of every box."""
        text = bytes(message).lstrip()
        if text.startswith((b"*", b":", b"SYST", b"syst")):
            return self._scpi.execute(text)
        with self._lock:
            header, _, rest = text.partition(b" ")
            name = header.decode("latin-1").upper()
            if name == "WVDT?":
                return self._stored(rest)
            channel, _, command = name.partition(":")
            number = {"C1": 1, "C2": 2}.get(channel)
            if number is None:
                return None  # no command of this instrument: ignored
            if command == "WVDT":
                self._store(number, rest)
            elif command.endswith("?"):
                return self._answer(number, command[:-1])
            else:
                self._put(number, command, [part.strip() for part in rest.decode("latin-1").split(",")])
            return None

    def _put(self, number: int, command: str, parts: list[str]) -> None:
        """Apply fields from left to right; what cannot be is clamped or ignored."""
        s, before = self._channels[number], {number: self._channels[number].flag("output")}
        if command == "OUTP" and parts[0].upper() in ("ON", "OFF"):
            s.change(output=parts.pop(0).upper() == "ON")
        if command == "BTWV" and parts[0].upper() == "MTRIG":
            if s.flag("burst") and s.text("trigger") == "BUS":
                self._fire((number,))
            return
        for key, value in zip(parts[::2], parts[1::2], strict=False):
            name = FIELDS.get(command, {}).get(key.upper())
            if name is None or (command == "BTWV" and not s.flag("burst") and name != "burst"):
                continue
            try:
                self._set(s, number, name, value.strip('"'))
            except (ScpiError, ValueError):
                continue  # without a word
        self._report_switched(before)

    def _set(self, s: Settings, number: int, name: str, text: str) -> None:
        if name == "burst":
            s.change(burst=text.upper() == "ON")
        elif name == "arb":
            if text.upper() in self._memory[number]:
                s.change(arb=text.upper())
        elif name in WORDS:
            self._word(s, name, WORDS[name].get(text.upper(), ""))
        elif name == "load":
            self._load(s, INFINITY if text.upper() == "HZ" else float(int(min(max(float(text), 50), 100_000))))
        elif name in ("high", "low"):
            self._end(s, name, float(text))
        elif name == "cycles":
            s.change(cycles=INFINITY if text.upper() == "INF" else float(min(max(int(float(text)), 1), 1_000_000)))
        else:
            s.change(**{name: self._clamped(s, name, float(text))})

    def _word(self, s: Settings, name: str, word: str) -> None:
        """A word that the field has not is ignored; a new wave switches bursts off, and an edge that comes in none out."""
        if not word or (name == "mode" and self.data.bits != 16):
            return
        beside: dict[str, object] = {}
        if name == "function" and word != s.text("function"):
            beside = {"burst": False}
        elif name == "trigger" and word == "EXT":
            beside = {"out": "OFF"}
        elif name == "out" and s.text("trigger") == "EXT":
            beside = {"trigger": "IMM"}
        s.change(**{name: word, **beside})  # type: ignore[arg-type]

    def _load(self, s: Settings, load: float) -> None:
        """The levels at the connector stay: what is shown follows the load."""
        factor = divider(load) / divider(s.number("load"))
        s.change(load=load, vpp=s.number("vpp") * factor, offset=s.number("offset") * factor)

    def _end(self, s: Settings, name: str, value: float) -> None:
        """One end of the levels moves, the other stays."""
        top, low, high = 10.0 * divider(s.number("load")), low_v(s), high_v(s)
        if name == "high":
            high = min(max(value, low + LEAST_VPP), top)
        else:
            low = max(min(value, high - LEAST_VPP), -top)
        s.change(vpp=high - low, offset=0.5 * (high + low))

    def _clamped(self, s: Settings, name: str, value: float) -> float:
        top = 10.0 * divider(s.number("load"))
        limits = {
            "vpp": (LEAST_VPP, 2 * (top - abs(s.number("offset")))),
            "offset": (s.number("vpp") / 2 - top, top - s.number("vpp") / 2),
            "frequency": (1e-6, 20e6 if s.text("function") == "ARB" else self.data.sine_hz),
            "rate": (1e-6, self.data.rate_hz),
            "delay": (BURST_DELAY_S, 100.0),
            "burst_period": (1e-6, 1000.0),
        }
        low, high = limits.get(name, (-360.0, 360.0))
        return min(max(value, low), high)

    # -- Replies ------------------------------------------------------------------------------------------------------

    def _answer(self, number: int, command: str) -> bytes | None:
        s = self._channels[number]
        told = {"OUTP": self._output, "BSWV": self._wave, "BTWV": self._burst, "SRATE": self._sampling, "ARWV": self._arb}
        if command not in told:
            return None  # nothing answers: who asks waits in vain
        return f"C{number}:{command} {told[command](s, number)}".encode()

    def _output(self, s: Settings, number: int) -> str:
        load = "HZ" if s.number("load") >= INFINITY else f"{s.number('load'):.0f}"
        return f"{'ON' if s.flag('output') else 'OFF'},LOAD,{load},PLRT,{_word(s, 'polarity')}"

    def _wave(self, s: Settings, number: int, carrier: bool = False) -> str:
        shape = s.text("function")
        if shape == "DC":
            return f"WVTP,DC,OFST,{s.number('offset'):.6g}V"
        tarb = shape == "ARB" and s.text("mode") == "TARB"
        hz = s.number("rate") / len(self._memory[number][s.text("arb")]) if tarb else s.number("frequency")
        rms = f"AMPVRMS,{s.number('vpp') * VRMS[shape]:.6g}Vrms," if shape in VRMS else ""
        ends = "" if carrier else f"HLEV,{high_v(s):.6g}V,LLEV,{low_v(s):.6g}V,"
        period = "" if carrier else f"PERI,{1 / hz:.6g}S,"
        return (
            f"WVTP,{_word(s, 'function')},FRQ,{hz:.10g}HZ,{period}AMP,{s.number('vpp'):.6g}V,{rms}"
            f"OFST,{s.number('offset'):.6g}V,{ends}PHSE,{s.number('phase'):.6g}"
        )

    def _burst(self, s: Settings, number: int) -> str:
        if not s.flag("burst"):
            return "STATE,OFF"
        trigger = _word(s, "trigger")
        period = f"PRD,{s.number('burst_period'):.6g}S," if trigger == "INT" else ""
        out = "" if trigger == "EXT" else f"TRMD,{s.text('out')},"
        times = "INF" if s.number("cycles") >= INFINITY else f"{s.number('cycles'):.0f}"
        return (
            f"STATE,ON,{period}STPS,{s.number('phase'):.6g},TRSR,{trigger},{out}TIME,{times},DLAY,{s.number('delay'):.6g}S,"
            f"GATE_NCYC,{_word(s, 'burst_mode')},CARR,{self._wave(s, number, carrier=True)}"
        )

    def _sampling(self, s: Settings, number: int) -> str:
        if s.text("mode") == "DDS":
            return "MODE,DDS"
        return f"MODE,TARB,VALUE,{s.number('rate'):.10g}Sa/s,INTER,{s.text('inter')}"

    def _arb(self, s: Settings, number: int) -> str:
        return f"INDEX,0,NAME,{s.text('arb')}"

    # -- Records ------------------------------------------------------------------------------------------------------

    def _store(self, number: int, rest: bytes) -> None:
        """Keep a record for both channels; of an odd number of bytes the last, a newline behind the samples, is dropped."""
        head, found, data = rest.partition(self.raw)
        parts = head.decode("latin-1").split(",")
        named: Mapping[str, str] = dict(zip((part.strip().upper() for part in parts[::2]), parts[1::2], strict=False))
        name = named.get("WVNM", "").strip(' "').upper()
        if not found or not name or len(data) < 4:
            return
        codes = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)
        if self.data.bits != 16:
            codes = codes[np.arange(PERIOD) * len(codes) // PERIOD]
        for n, volatile in self._memory.items():
            volatile.replace(name, np.maximum(codes, -32767))
            if self._channels[n].text("arb") == name:
                self._moved(n)

    def _stored(self, rest: bytes) -> bytes | None:
        name = rest.decode("latin-1").partition(",")[2].strip(' "').upper()
        if name not in self._memory[1]:
            return None
        data = self._memory[1][name].astype("<i2").tobytes()
        head = f"WVDT POS,local,WVNM,{name},LENGTH,{len(data)}B,TYPE,5,WAVEDATA,"
        return head.encode() + data


def _word(s: Settings, name: str) -> str:
    return next(word for word, kept in WORDS[name].items() if kept == s.text(name))


def _undocumented() -> Iterator[Command]:
    """Nothing but common commands, and an error queue that is always empty."""
    yield from ()
