"""Simulated Moku:Go in multi-instrument mode, as an unmodified package moku reaches it: a generator and an oscilloscope.

    a request     owner's key, group ("slot1/awg"), operation ("generate_waveform"), parameters  ->  data, or MokuError
    output        table[ floor(n (f t mod 1)) ]: -1 to 1, scaled by its largest value; amplitude / 2 times that, and the offset
    a frame       from the edge of the trigger on; 0.9 of the points that were asked for, as a real one has fewer

Only the owner is served. An output that is disabled is at 0 V. Between Output1 and Input1 stands the node, `delay_s` late.

Source: the package moku 4.4.0 (requests, sample responses, ranges). Not simulated: other instruments, bitstreams, DIO.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Volts = NDArray[np.float64]
HIGHEST_V, LEAST_VPP, MOST_VPP = 5.0, 4e-3, 10.0
LEAST_HZ, HIGHEST_HZ, MOST_ENTRIES = 1e-3, 10e6, 65_536
SHARE, BITS = 0.9, 12
RANGES = {"0dB": 5.0, "14dB": 25.0}


class MokuError(Exception):
    """A request that is refused. Args: code: as the API has it."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(said)
        self.code = code


@dataclass
class Output:
    """A channel of the generator."""

    table: Volts = field(default_factory=lambda: np.zeros(2))
    frequency: float = 1e3
    amplitude: float = 1.0
    offset: float = 0.0
    on: bool = False

    def at(self, seconds: Volts) -> Volts:
        """Volts at instants, from the beginning of the table on."""
        most = np.abs(self.table).max()
        share = np.mod(seconds * self.frequency + 1e-9, 1.0)
        entries = self.table[np.minimum((share * len(self.table)).astype(int), len(self.table) - 1)] / (most or 1.0)
        found: Volts = (0.5 * self.amplitude * entries + self.offset) * self.on
        return found


class MokuGo:
    """The Moku.

    Args:
        serial: serial number.
        node: V of Output1, at many instants -> V of Input1.
        delay_s: from one to the other.
        noise_v: of an input, standard deviation.
        seed: of the noise.
    """

    def __init__(
        self,
        node: Callable[[Volts], Volts],
        *,
        serial: str = "SIM000042",
        delay_s: float = 0.0,
        noise_v: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._serial, self._node, self._delay_s, self._noise_v = serial, node, delay_s, noise_v
        self._random, self.lock = np.random.default_rng(seed), threading.Lock()
        self.owner, self.requests = "", 0
        self.generator = {1: Output(), 2: Output()}
        self._routes: dict[str, str] = {}
        self._slots: list[str] = []
        self._full_v, self._level_v = RANGES["0dB"], 0.0
        self._span_s, self._points = (0.0, 1e-3), 1024

    def request(self, key: str, group: str, operation: str, given: Mapping[str, Any]) -> tuple[Any, str]:
        """Carry out a request; its data, and the owner's key. Raises: MokuError. KeyError: there is no such operation."""
        with self.lock:
            self.requests += 1
            if (group, operation) == ("moku", "claim_ownership"):
                if self.owner and not given.get("force_connect"):
                    raise MokuError("INVALID_REQUEST", "the Moku is owned by another client")
                self.owner = f"key{self.requests}"
                return "ok", self.owner
            if not self.owner or key != self.owner:
                raise MokuError("INVALID_REQUEST", "this client does not own the Moku")
            return self._owned(group, operation, given), self.owner

    def _owned(self, group: str, operation: str, given: Mapping[str, Any]) -> Any:
        if group == "moku" and operation.startswith("platform/"):
            self._slots, self._routes = [""] * int(operation.partition("/")[2]), {}
            return None
        if group.startswith("slot") and "/" not in group and operation in ("awg", "oscilloscope"):
            self._slots[int(group[4:]) - 1] = operation
            return None
        calls: dict[tuple[str, str], Callable[[Mapping[str, Any]], Any]] = {
            ("moku", "relinquish_ownership"): self._relinquish,
            ("moku", "describe"): lambda given: {
                "hardware": "Moku:Go", "mokuOS": "4.4.0", "version": "4.4.0.1", "proxy_version": "3", "instruments_build": 1
            },
            ("moku", "serial_number"): lambda given: self._serial,
            ("moku", "platform_supported"): lambda given: None,
            ("moku", "instrument_supported"): lambda given: None,
            ("mim", "get_instruments"): lambda given: list(self._slots),
            ("mim", "set_connections"): self._connect,
            ("mim", "set_frontend"): self._frontend,
            ("slot1/awg", "generate_waveform"): self._generate,
            ("slot1/awg", "enable_output"): self._enable,
            ("slot1/awg", "sync_phase"): lambda given: None,
            ("slot2/oscilloscope", "set_trigger"): self._trigger,
            ("slot2/oscilloscope", "set_timebase"): self._timebase,
            ("slot2/oscilloscope", "get_data"): self._frame,
        }  # fmt: skip
        return calls[group, operation](given)

    def _relinquish(self, given: Mapping[str, Any]) -> None:
        self.owner = ""

    def _connect(self, given: Mapping[str, Any]) -> Any:
        self._routes = {one["destination"]: one["source"] for one in given["connections"]}
        return given["connections"]

    def _frontend(self, given: Mapping[str, Any]) -> Any:
        if given["attenuation"] not in RANGES:
            raise MokuError("INVALID_PARAM", f"attenuation {given['attenuation']}")
        self._full_v = RANGES[given["attenuation"]]
        return {name: given[name] for name in ("attenuation", "coupling", "impedance")}

    def _generate(self, given: Mapping[str, Any]) -> Any:
        table = np.asarray(given["lut_data"], float)
        frequency, amplitude, offset = (float(given[name]) for name in ("frequency", "amplitude", "offset"))
        if not (1 < len(table) <= MOST_ENTRIES and np.isfinite(table).all() and LEAST_HZ <= frequency <= HIGHEST_HZ):
            raise MokuError("INVALID_PARAM", f"{len(table)} entries at {frequency:g} Hz")
        if not LEAST_VPP <= amplitude <= MOST_VPP or abs(offset) + 0.5 * amplitude > HIGHEST_V + 1e-9:
            raise MokuError("INVALID_PARAM", f"{amplitude:g} Vpp about {offset:g} V")
        output = self.generator[given["channel"]]
        output.table, output.frequency, output.amplitude, output.offset = table, frequency, amplitude, offset
        return {"Enabled": output.on, "amplitude": amplitude, "frequency": frequency, "offset": offset, "phase": 0.0}

    def _enable(self, given: Mapping[str, Any]) -> Any:
        self.generator[given["channel"]].on = bool(given["enable"])
        return {"enable": bool(given["enable"])}

    def _trigger(self, given: Mapping[str, Any]) -> Any:
        if (given["type"], given["source"], given["edge"], given["mode"]) != ("Edge", "ChannelA", "Rising", "Normal"):
            raise MokuError("INVALID_PARAM", "this trigger is not simulated")
        self._level_v = float(given["level"])
        return {"level": self._level_v, "edge": "Rising"}

    def _timebase(self, given: Mapping[str, Any]) -> Any:
        self._span_s, self._points = (float(given["t1"]), float(given["t2"])), int(given["max_length"])
        return {"t1": self._span_s[0], "t2": self._span_s[1]}

    def _frame(self, given: Mapping[str, Any]) -> Any:
        seconds = np.linspace(*self._span_s, int(SHARE * self._points), endpoint=False)
        edge_s = self._edge_s()
        if edge_s is None:
            raise MokuError("INVALID_REQUEST", "timed out waiting for a trigger")
        return {
            "time": seconds.tolist(),
            "ch1": self._seen("Slot2InA", seconds + edge_s),
            "ch2": self._seen("Slot2InB", seconds + edge_s),
        }

    def _edge_s(self) -> float | None:
        """The instant of a rising edge of what stands at the trigger, within its table."""
        output = self._source(self._routes.get("Slot2InA", ""))
        if output is None:
            return None
        above = output.at((np.arange(len(output.table)) + 0.5) / len(output.table) / output.frequency) > self._level_v
        rises = np.flatnonzero(above & ~np.roll(above, 1))
        return None if not len(rises) else float(rises[0]) / len(output.table) / output.frequency

    def _source(self, name: str) -> Output | None:
        return {"Slot1OutA": self.generator[1], "Slot1OutB": self.generator[2]}.get(name)

    def _seen(self, inlet: str, seconds: Volts) -> list[float]:
        """What an inlet of the oscilloscope sees, through the converter."""
        source = self._routes.get(inlet, "")
        late_s, output = 0.0, self._source(source)
        if source == "Input1":
            late_s, output = self._delay_s, self._source(self._routes.get("Output1", ""))
        volts = np.zeros_like(seconds) if output is None else output.at(seconds - late_s)
        if source == "Input1":
            volts = self._node(volts) + self._noise_v * self._random.standard_normal(len(volts))
        step = 2 * self._full_v / (1 << BITS)
        found: list[float] = (np.rint(volts / step) * step).clip(-self._full_v, self._full_v).tolist()
        return found
