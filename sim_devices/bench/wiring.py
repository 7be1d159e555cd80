"""The wires of a virtual bench: generator channels -> cables -> node -> scope channels, and SYNC -> EXT TRIG.

    x_k = drive( t_k - delay )       t_k the instants of the scope, zero-order hold on the generator's samples
    y   = node.respond(x)            at the scope's sample interval, or `oversample` times finer, the last of each kept
    SYNC = 3.3 V for the first half of a record, 0 V else; on a scope channel of its own where a cable leads there
    word = ADC( y + front-end noise )

A node has one input and one output, or several: x is then (points, K), y (points, L). Output l is read d_l later than output 1.
t = 0 is the SYNC edge, at which sample 0 of the record leaves the generator. The SYNC of the generator of the first wire
leads to the trigger input of the scope and of all other generators; one that waits for it there plays at once (what it takes
longer is part of its cable's delay). A sample of the scope reads what the node gives at the end of its interval, as the twin
does. A node with memory has rested for long when a record begins; it is driven from there on, seen or not, in points of its
own. Noise and drift of shot k come from the generator (seed, k, "plant"), so a snapshot is the shot number and the state of
the twins.

Source of the trigger rules: Keysight 33500B/33600A Operating and Service Guide, "SYNC Signal" (3.3 V, high for the first half
of an arbitrary record); InfiniiVision 3000 X-Series Programmer's Guide, ":TRIGger:EDGE".
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.errors import ConfigError, ContractError, nearest
from hil.seeding import generator
from sim_devices.bench.wire import Cable, Continuing, Node, Wire
from sim_devices.instruments.drive import Drive
from sim_devices.instruments.faults import Fault, Faults, Moment, Strike
from sim_devices.instruments.generator_box import GeneratorBox
from sim_devices.instruments.sampling import Window
from sim_devices.instruments.scope_box import ScopeBox, Trigger
from sim_devices.mode_hop import hop
from sim_devices.switch_log import Switched, SwitchLog
from sim_devices.twin import State, saved, taken

SYNC_V = 3.3
SLACK = 1e-4  # of a sample: an instant that close below the next sample belongs to it
SEARCHED = 1 << 24  # points in which a crossing is looked for
NUMBERED = re.compile(r"(\w+?)(\d+)_(\w+)")

Playing = frozenset[tuple[int, int]]
"""Wires and inputs of them, counted from 0, whose generator channel plays."""


class Plant:
    """The wires of a bench. Boxes on one bench share one lock, which is held when the plant is called.

    Args:
        wires: at least one.
        seed: of noise and drift.
        oversample: points simulated per point of the scope; more than 1 where a node's bandwidth matters between the
            scope's points.
        clock: for the log, seconds.
        log: of the outputs that are switched.
        faults: of the nodes, by "node", "node2", ... for the wires in order.
    """

    def __init__(
        self,
        wires: Sequence[Wire],
        *,
        seed: int = 0,
        oversample: int = 1,
        clock: Callable[[], float] = time.time,
        log: SwitchLog | None = None,
        faults: Mapping[str, Faults] | None = None,
    ) -> None:
        if not wires or oversample < 1:
            raise ConfigError("a bench needs a wire", where="wiring", got=f"{len(wires)} wires, oversample {oversample}")
        ends = [(id(w.scope), channel) for w in wires for channel in w.ends]
        if len(set(ends)) < len(ends):
            raise ConfigError("two wires end at one scope channel", where="wiring", got=f"{[c for _, c in ends]}")
        for node in (wire.node for wire in wires):
            if missing := [name for name in ("settings", "sampled", "remade") if not callable(getattr(node, name, None))]:
                raise ConfigError(
                    "a node without these methods cannot stand between a generator and a scope", where=type(node).__name__,
                    got=f"no {', '.join(missing)}", allowed="a node as sim_devices/bench/wire.py says",
                )  # fmt: skip
        self._lock = wires[0].awg.lock
        locks = [lock for w in wires for lock in (w.scope.lock, *(drive.awg.lock for drive in w.drives))]
        if any(lock is not self._lock for lock in locks):
            raise ConfigError("the boxes of one bench must share one lock", where="wiring", todo="give every box the same lock")
        self._wires, self._seed, self._oversample, self._clock = list(wires), seed, oversample, clock
        self._shot = 0
        self._lived_s = 0.0
        self._sync = True
        self._states: list[State | None] = [None] * len(wires)
        self._sampled: list[tuple[float, Node] | None] = [None] * len(wires)
        self._indices: dict[tuple[int, int, int], tuple[tuple[float, ...], NDArray[np.intp]]] = {}
        self._log = log or SwitchLog()
        known = faults or {}
        self._faults = [known.get(f"node{_tail(i)}") or Faults(f"node{_tail(i)}", "node") for i in range(len(wires))]
        self._extremes: dict[str, dict[int, tuple[float, float]]] = {}
        for i, wire in enumerate(self._wires):
            self._faults[i].check = partial(self._can_hop, i)
            for drive in wire.drives:
                drive.awg.connect(self)
            wire.scope.connect(self)

    # -- What the boxes call, with the lock held ----------------------------------------------------------------------

    def fired(self, source: GeneratorBox, channels: tuple[int, ...]) -> None:
        """A burst starts, and others with it that wait for its edge: every scope that waits for the edge records it."""
        led = self._sync and source is self._wires[0].awg and any(source.sync(channel) for channel in channels)
        others = [awg for awg in self._awgs() if awg is not source] if led else []
        started = {id(source): channels, **{id(awg): awg.edge() for awg in others}}
        for awg in (source, *others):
            for channel in started[id(awg)]:
                if awg.on(channel):
                    self._see(awg, channel, whole=True)
        for scope in self._scopes():
            playing = self._playing(scope, started)
            if scope.waiting and any(self._wires[i].drives[k].awg is source for i, k in playing):
                self._take(scope, playing)

    def armed(self, scope: ScopeBox) -> None:
        """A generator that runs freely gives the next edge at once."""
        playing = self._playing(scope)
        while scope.waiting and playing and self._take(scope, playing) and scope.mode != "running":
            pass  # an average takes several

    def forced(self, scope: ScopeBox) -> None:
        """Take a record without an edge: bursts are at rest, what runs freely is somewhere in its record."""
        self._record(scope, scope.window(), self._playing(scope))

    def switched(self, source: GeneratorBox, channel: int, on: bool) -> None:
        """Log that an output relay moved; an output that comes on drives the node at once."""
        self._log.add(Switched(self._clock(), source.name, channel, on))
        if on:
            self.moved(source, channel)
            for scope in self._scopes():
                self.armed(scope)

    def moved(self, source: GeneratorBox, channel: int) -> None:
        """Take note of what the output of `source` does now, after a change of its settings."""
        self._see(source, channel, whole=source.free_running(channel))

    # -- What people and the control port call ------------------------------------------------------------------------

    @property
    def log(self) -> tuple[Switched, ...]:
        """Outputs that went on or off, oldest first."""
        return self._log.entries

    def extremes(self) -> dict[str, object]:
        """Return by generator and channel the lowest and highest V at its connector since the start.

        The voltage is that at the load of its cable; a channel without a cable is open, and one that never was on is not
        there.
        """
        with self._lock:
            return {
                name: {str(channel): {"low_v": low, "high_v": high} for channel, (low, high) in seen.items()}
                for name, seen in self._extremes.items()
            }

    @property
    def shots(self) -> int:
        """Number of times that the nodes were driven."""
        return self._shot

    def paths(self) -> tuple[str, ...]:
        """Name all parameters that `get` and `set` know; the second wire's are node2.…, cable2.…, scope2.…, state2.… ."""
        found = ["sync.connected", "time_s"]
        for i, wire in enumerate(self._wires):
            tail = _tail(i)
            found += [f"node{tail}.{name}" for name, value in wire.node.settings().items() if isinstance(value, int | float)]
            found += [f"state{tail}.{k}" for k, part in enumerate(self._states[i] or ()) if part.numel() == 1]
            found += [f"cable{tail}.delay_s", f"cable{tail}.load_ohm", f"scope{tail}.noise_v"]
            found += [f"cable{tail}.{name}" for k in range(2, len(wire.drives) + 1) for name in (f"delay{k}_s", f"load{k}_ohm")]
        return tuple(found)

    def get(self, path: str) -> float:
        """A parameter of the plant, for example ``node.phase_rad``; ``state.0`` is the first part of the twin's state now.

        ``time_s`` is how long the first node has lived, in its own time.

        Raises:
            ConfigError: there is no such path.
        """
        with self._lock:
            if path == "sync.connected":
                return float(self._sync)
            if path == "time_s":
                return self._lived_s
            what, name, i = self._parsed(path)
            wire = self._wires[i]
            if what == "node":
                return float(wire.node.settings()[name])
            if what == "state":
                return float((self._states[i] or ())[int(name)])
            if what == "scope":
                return wire.noise_v
            k, key = _numbered(name)
            return float(getattr(wire.drives[k].cable, key))

    def set(self, path: str, value: float) -> None:
        """Change a parameter.

        Of the state, only what rests elsewhere with the new node moves: a change of the noise does not undo the drift.

        Raises:
            ConfigError: there is no such path, or the node refuses the value.
        """
        with self._lock:
            if path == "sync.connected":
                self._sync = bool(value)
                return
            if path == "time_s":
                raise ConfigError("the time of the plant cannot be set", where="wiring", got=f"{value}", todo="read it")
            what, name, i = self._parsed(path)
            wire = self._wires[i]
            if what == "node":
                settings = wire.node.settings()
                self._renew(i, {**settings, name: type(settings[name])(value)})  # a count stays one
            elif what == "state":
                parts = list(self._states[i] or ())
                parts[int(name)] = torch.full_like(parts[int(name)], value)
                self._states[i] = tuple(parts)
            elif what == "scope":
                self._wires[i] = replace(wire, noise_v=value)
            else:
                k, key = _numbered(name)
                drives = list(wire.drives)
                drives[k] = replace(drives[k], cable=replace(drives[k].cable, **{key: value}))
                self._wires[i] = replace(wire, cable=drives[0].cable, inputs=tuple(drives[1:]))

    def snapshot(self) -> dict[str, object]:
        """Return shot counter, SYNC cable and every wire, the states of the nodes as tensors."""
        with self._lock:
            return {"shot": self._shot, "sync": self._sync, "wires": [self._saved(i) for i in range(len(self._wires))]}

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot.

        Raises:
            ContractError: it is none of this bench.
        """
        shot, wires = state.get("shot"), state.get("wires")
        if not (isinstance(shot, int) and isinstance(wires, list) and len(wires) == len(self._wires)):
            raise ContractError("not a snapshot of this bench", where="wiring", got=str(state)[:80])
        with self._lock:
            self._shot, self._sync = shot, bool(state.get("sync"))
            for i, told in enumerate(wires):
                wire = self._wires[i]
                cables = [Cable(**each) for each in told.get("cables", [])]
                inputs = tuple(replace(one, cable=cable) for one, cable in zip(wire.inputs, cables, strict=True))
                self._wires[i] = replace(
                    wire, node=_made(wire.node, told["node"]), cable=Cable(**told["cable"]), noise_v=float(told["noise_v"]),
                    inputs=inputs,
                )  # fmt: skip
                self._sampled[i] = None
                self._states[i] = self._fitting(i, taken(told["state"]))

    def _fitting(self, i: int, state: State | None) -> State | None:
        """Raises: ContractError: not a state that node i can have."""
        rest = self._wires[i].node.rest(1, self._resting(i)) if state is not None else None
        if [(p.shape, p.dtype) for p in state or ()] != [(p.shape, p.dtype) for p in rest or ()]:
            raise ContractError("the state of another node", where="wiring", got=str([tuple(p.shape) for p in state or ()]))
        return state

    # -- Inside -------------------------------------------------------------------------------------------------------

    def _see(self, source: GeneratorBox, channel: int, whole: bool) -> None:
        """Note what is at the connector now."""
        drives = (drive for wire in self._wires for drive in wire.drives)
        load = next((drive.cable.load_ohm for drive in drives if drive.awg is source and drive.channel == channel), math.inf)
        low, high = source.span(channel, load, whole)
        seen = self._extremes.setdefault(source.name, {})
        lowest, highest = seen.get(channel, (low, high))
        seen[channel] = min(low, lowest), max(high, highest)

    def _scopes(self) -> list[ScopeBox]:
        return list({id(w.scope): w.scope for w in self._wires}.values())

    def _awgs(self) -> list[GeneratorBox]:
        return list({id(drive.awg): drive.awg for wire in self._wires for drive in wire.drives}.values())

    def _playing(self, scope: ScopeBox, started: Mapping[int, tuple[int, ...]] | None = None) -> Playing:
        """The inputs of wires into `scope` whose generator channel was triggered, or runs freely."""
        begun = started or {}
        return frozenset(
            (i, k)
            for i, w in enumerate(self._wires)
            for k, drive in enumerate(w.drives)
            if w.scope is scope and (drive.channel in begun.get(id(drive.awg), ()) or drive.awg.free_running(drive.channel))
        )

    def _take(self, scope: ScopeBox, playing: Playing) -> bool:
        """Record, if the edge that the scope waits for comes."""
        edge, window = scope.edge(), scope.window()
        if edge.source != scope.trigger_input:
            return self._take_level(scope, edge, window, playing)
        if not (self._sync and 0 <= edge.level_v < SYNC_V):
            return False
        leading = next((i for i, k in playing if k == 0 and self._wires[i].awg.sync(self._wires[i].awg_channel)), None)
        if leading is None or scope.misses():
            return False
        late = 0.0 if edge.rising else 0.5 * self._drive(leading, 0).duration_s
        self._record(scope, replace(window, start_s=window.start_s + late), playing, window)
        return True

    def _take_level(self, scope: ScopeBox, edge: Trigger, window: Window, playing: Playing) -> bool:
        """Trigger on a signal: drive the whole record, look for the first crossing, cut the window around it.

        A record of more than SEARCHED points never triggers: :TIM:POS 500 at 5 GSa/s would be 10 TB.
        """
        rate = window.rate_hz
        before = max(0, math.ceil(-window.start_s * rate))
        after = max(0, math.ceil(window.start_s * rate) + window.points)
        drives = [self._drive(i, k) for i, k in playing]
        played = max(d.duration_s * (d.cycles if math.isfinite(d.cycles) else 1) for d in drives)
        long = Window(-before / rate, rate, before + math.ceil(played * rate) + after)
        if long.points > SEARCHED:
            return False
        volts = self._volts(scope, long, playing)
        signal = volts.get(int(edge.source[-1]))
        if signal is None:
            return False
        above = (signal if edge.rising else -signal) >= (edge.level_v if edge.rising else -edge.level_v)
        crossings = torch.nonzero(above[1:] & ~above[:-1])
        later = crossings[crossings >= before - 1]
        if not len(later):
            return False
        first = int(later[0]) + 1 + round(window.start_s * rate)
        if first + window.points > long.points or scope.misses():
            return False
        scope.capture(window, {n: v[first : first + window.points] for n, v in volts.items()})
        return True

    def _record(self, scope: ScopeBox, instants: Window, playing: Playing, shown: Window | None = None) -> None:
        scope.capture(shown or instants, self._volts(scope, instants, playing))

    @torch.no_grad()
    def _volts(self, scope: ScopeBox, window: Window, playing: Playing) -> dict[int, Tensor]:
        """Drive every node that leads to `scope` once; this is one shot."""
        fine = Window(window.start_s, window.rate_hz * self._oversample, window.points * self._oversample)
        found: dict[int, Tensor] = {}
        for i, wire in enumerate(self._wires):
            if wire.scope is scope:
                strikes = self._faults[i].strikes(Moment.SHOT) if self._faults[i].on_physics else ()
                found |= self._answers(i, fine, playing, strikes)
                if wire.sync is not None:
                    found[wire.sync] = self._pulse(i, window, (i, 0) in playing)
        self._shot += 1
        self._lived_s += window.points / window.rate_hz + self._wires[0].node.settings().get("overhead_s", 0.0)
        return found

    def _answers(self, i: int, window: Window, playing: Playing, strikes: Sequence[Strike]) -> dict[int, Tensor]:
        """V at each scope channel, (n / oversample,). Outputs that are read later are asked for anew, from the same state."""
        wire = self._wires[i]
        if not wire.many:
            whole, finer = self._lived(i, window)
            x = torch.from_numpy(self._levels(i, 0, whole, (i, 0) in playing))
            y = self._response(i, x.unsqueeze(0), window.rate_hz, strikes, finer).reshape(-1)
            return {wire.scope_channel: y[len(y) - window.points // self._oversample :]}
        before, after = self._states[i], None
        found: dict[int, Tensor] = {}
        for turn, delay_s in enumerate(dict.fromkeys(read.delay_s for read in wire.reads)):
            seen = replace(window, start_s=window.start_s - delay_s)
            levels = [self._levels(i, k, seen, (i, k) in playing, turn) for k in range(len(wire.drives))]
            self._states[i] = before
            y = self._response(i, torch.from_numpy(np.stack(levels, axis=1)), window.rate_hz, strikes)
            after = self._states[i] if after is None else after
            found |= {read.channel: y[:, k] for k, read in enumerate(wire.reads) if read.delay_s == delay_s}
        self._states[i] = after
        return found

    def _lived(self, i: int, window: Window) -> tuple[Window, int]:
        """Return what node i lives through until the end of a window, and how many points it takes for one of them.

        A node without memory: the window, 1. One with memory: all since the record began, in points of its own, so that the
        last of each sample is at its instant.
        """
        node = self._at(i, window.rate_hz)
        if not isinstance(node, Continuing):
            return window, 1
        finer = node.finer
        before = max(0, math.ceil((window.start_s - self._wires[i].cable.delay_s) * window.rate_hz)) + 1
        rate_hz, points = window.rate_hz * finer, before + window.points
        return Window(window.start_s - before / window.rate_hz - (finer - 1) / rate_hz, rate_hz, points * finer), finer

    def _at(self, i: int, rate_hz: float) -> Node:
        """Node i, sampled at this rate."""
        known = self._sampled[i]
        if known is None or known[0] != rate_hz:
            known = self._sampled[i] = (rate_hz, self._wires[i].node.sampled(1 / rate_hz))
        return known[1]

    def _pulse(self, i: int, window: Window, playing: bool) -> Tensor:
        """V at the scope channel that SYNC leads to, (points,)."""
        drive, wire = self._drive(i, 0), self._wires[i]
        t = window.start_s - wire.sync_delay_s + torch.arange(window.points, dtype=torch.float64) / window.rate_hz
        high = (t >= 0) & (t < 0.5 * drive.duration_s)
        return SYNC_V * (high & (playing and self._sync and wire.awg.sync(wire.awg_channel))).float()

    def _response(self, i: int, x: Tensor, rate_hz: float, strikes: Sequence[Strike], finer: int = 1) -> Tensor:
        """(1, n) V at the node, or (n, K), -> (n / oversample / finer, L) V at the scope."""
        wire, rng = self._wires[i], generator(self._seed, self._shot, f"plant{_tail(i)}")
        sampled = self._at(i, rate_hz)
        node, shift = self._hopped(i, rate_hz, strikes) if strikes else (sampled, None)
        if isinstance(sampled, Continuing):  # it has rested, so no state is kept
            y, _ = node.respond((), None, x, rng)
        else:
            state = self._states[i]
            if state is None:
                state = wire.node.rest(1, self._resting(i))
            y, after = node.respond(state if shift is None else _moved(state, shift, 1), None, x, rng)
            self._states[i] = after if shift is None else _moved(after, shift, -1)
        every = self._oversample * finer
        y = y.reshape(-1, len(wire.reads))[every - 1 :: every]
        if wire.noise_v:
            y = y + wire.noise_v * torch.randn(y.shape, generator=rng)
        return y

    def _hopped(self, i: int, rate_hz: float, strikes: Sequence[Strike]) -> tuple[Node, State]:
        """Return, for one shot, another node in the same place, and how far its rest is from that of the node itself."""
        node = self._wires[i].node
        settings = dict(node.settings())
        for strike in strikes:
            settings |= hop(settings, strike.fault)
        other = _made(node, settings)
        rests = zip(node.rest(1, self._resting(i)), other.rest(1, self._resting(i)), strict=True)
        return other.sampled(1 / rate_hz), tuple(there - here for here, there in rests)

    def _can_hop(self, i: int, fault: Fault) -> None:
        """Raises: ConfigError: the node of wire i cannot make this mode hop."""
        node = self._wires[i].node
        _made(node, {**node.settings(), **hop(node.settings(), fault)})

    def _drive(self, i: int, k: int) -> Drive:
        one = self._wires[i].drives[k]
        return one.awg.drive(one.channel, one.cable.load_ohm)

    def _levels(self, i: int, k: int, window: Window, playing: bool, turn: int = 0) -> NDArray[np.float32]:
        """Return the voltage at input k of a node at the instants of a window, V; `turn`: which window of a shot."""
        drive = self._drive(i, k)
        if not (playing and drive.on):
            return np.full(window.points, drive.rest_v, dtype=np.float32)
        length = len(drive.levels) - 1
        start = (window.start_s - self._wires[i].drives[k].cable.delay_s) * drive.sample_rate_hz
        key = (start, drive.sample_rate_hz / window.rate_hz, window.points, length, drive.cycles)
        known = self._indices.get((i, k, turn))
        if known is None or known[0] != key:
            known = self._indices[i, k, turn] = (key, _held(*key))
        return drive.levels.take(known[1])

    def _resting(self, i: int) -> torch.Generator:
        return generator(self._seed, 0, f"rest{_tail(i)}")

    def _renew(self, i: int, settings: Mapping[str, float]) -> None:
        """Put another node in the same place; see `set`."""
        old, new = self._wires[i].node, _made(self._wires[i].node, settings)
        self._wires[i], self._sampled[i] = replace(self._wires[i], node=new), None
        state = self._states[i]
        if state is not None:
            rests = zip(old.rest(1, self._resting(i)), new.rest(1, self._resting(i)), strict=True)
            self._states[i] = tuple(
                now if torch.equal(was, will) else will for now, (was, will) in zip(state, rests, strict=True)
            )

    def _saved(self, i: int) -> dict[str, object]:
        wire = self._wires[i]
        return {
            "node": dict(wire.node.settings()),
            "cable": {"delay_s": wire.cable.delay_s, "load_ohm": wire.cable.load_ohm},
            "noise_v": wire.noise_v,
            **({"cables": [asdict(one.cable) for one in wire.inputs]} if wire.inputs else {}),
            "state": saved(self._states[i]),
        }

    def _parsed(self, path: str) -> tuple[str, str, int]:
        """Split `path` into part (node, cable, scope or state), name, and index of the wire."""
        if path not in self.paths():
            hint = nearest(path, self.paths())
            raise ConfigError(
                "the plant has no such parameter",
                where="wiring",
                got=path,
                allowed=", ".join(self.paths()),
                todo=f"did you mean {hint}" if hint else "",
            )
        head, name = path.split(".", 1)
        what = head.rstrip("0123456789")
        return what, name, int(head[len(what) :] or 1) - 1


def _held(start: float, ratio: float, points: int, length: int, cycles: float) -> NDArray[np.intp]:
    """Return the entry of `Drive.levels` at each instant: floor(start + k ratio), the last one outside of the record."""
    index: NDArray[np.intp] = np.floor(np.arange(points) * ratio + (start + SLACK)).astype(np.intp)
    if math.isinf(cycles):
        return index % length
    outside = (index < 0) | (index >= length * cycles)
    index %= length
    index[outside] = length
    return index


def _moved(state: State, by: State, sign: int) -> State:
    return tuple(part + sign * step for part, step in zip(state, by, strict=True))


def _made(node: Node, settings: Mapping[str, float]) -> Node:
    """A node of the same kind."""
    return node.remade(settings)


def _numbered(name: str) -> tuple[int, str]:
    """Input and setting of its cable: "delay_s" of the first, counted from 0, "delay2_s" of the second."""
    found = NUMBERED.fullmatch(name)
    return (0, name) if found is None else (int(found[2]) - 1, f"{found[1]}_{found[3]}")


def _tail(i: int) -> str:
    """Wire 0 has no number, the next is 2."""
    return "" if i == 0 else str(i + 1)
