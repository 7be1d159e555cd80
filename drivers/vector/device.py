"""A node that K levels drive at once, on any instruments, and that L values are read from after it has settled.

    batch (batch, K)
      -> check     every row against the limits of every channel, before anything is sent
      -> for each row
           go      from what the channels hold, in steps: |step_k| <= max_step_k and slew_k * step_s, one every step_s
           settle  wait settle_s
           read    every meter `averages` times, averaged
    answer (batch, L)

Channels that are programmed, as heaters of a mesh, are held from shot to shot; they go to their levels in the same way. Where
all their instruments measure what they hold, they are read back (`held`): levels at terminals, not what a node made of them.

Where one instrument drives and reads everything, can go through a list by itself and no step is limited, rows go out as lists,
those of channels that are programmed with them.
All sources go in step: with steps k/n of the way each, so that a channel with a small slew is waited for. A batch is answered
whole or not at all. Channels begin at the `rest` of their ports, with the outputs on; from there no row is refused for its
distance, as the device says by `slew` (hil/slew.py). After a fault nothing is known of the levels: the next shot sets up anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from drivers.auxiliaries import Auxiliaries
from drivers.closing import close_all
from drivers.read_back import Care
from drivers.vector.roles import Instrument, Meter, SelfMeasuring, Source, Sweeper
from drivers.watched import Watched
from hil.device import Port, Provenance, Spec
from hil.errors import ConfigError, ContractError
from hil.port import Limit, each, limit_tensor
from hil.settings import Count, NotNegative, Positive, check
from hil.slew import Slew

LONGEST_S = 0.5  # a longer settling is waited for here: a list is one question, and its answer must not take too long
Channel = tuple[str, int]
"""Name of an instrument, and which of its channels, from 0."""


@dataclass(frozen=True, slots=True)
class VectorSettings:
    """Settings of a vector node.

    Args:
        settle_s: wait after the levels were set, before they are read.
        program_settle_s: wait after channels were programmed, as for the heat of a mesh.
        averages: every reading is taken so many times, and averaged.
        step_s: time between two steps of a level whose slew or step is limited.
        lists: let an instrument go through a list of rows by itself, where it can.
    """

    settle_s: NotNegative = 10e-3
    program_settle_s: NotNegative = 0.0
    averages: Count = 1
    step_s: Positive = 5e-3
    lists: bool = True

    def __post_init__(self) -> None:
        check(self, "vector")


class Vector:
    """A Device, Recoverable. Owns its instruments; `close()` leaves their outputs off.

    Args:
        instruments: opened drivers by name: Sources, Meters, or both. In the order in which they are closed.
        drive: the channel of each input, in order.
        read: the channel of each output, in order.
        settings: see VectorSettings.
        provenance: who really answers; whoever opened it knows.
        care: when the instruments are asked what they hold, and what a change by another hand leads to.
        auxiliaries: instruments beside these, started already; recovery starts them again.
        program: the channel of each parameter that is programmed, in order; they rest until then.
        clock: seconds from any origin.
        sleep: waits so many seconds.

    Raises:
        ConfigError: channels that are not there, that are named twice or not at all, or of several units; nothing was sent.
        Whatever the instruments raise; the outputs are off then.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        drive: Sequence[Channel],
        read: Sequence[Channel],
        settings: VectorSettings | None = None,
        provenance: Provenance = "unknown",
        care: Care | None = None,
        auxiliaries: Auxiliaries | None = None,
        program: Sequence[Channel] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._instruments, self._settings = dict(instruments), settings or VectorSettings()
        self.slew = Slew("ramps", self._settings.step_s)
        self._clock, self._sleep = clock, sleep
        self._closed = self._ready = False
        self._levels = torch.empty(0, dtype=torch.float64)  # (K + P,), what the channels hold while it is ready
        self._programs = list(program)
        self._programmed: Tensor | None = None  # (P,), what was programmed last
        self._sent_s = -math.inf
        try:
            driven = {name: one for name, one in instruments.items() if isinstance(one, Source)}
            measuring = {name: one for name, one in instruments.items() if isinstance(one, Meter)}
            self._sources = {name: one for name, one in driven.items() if name in {of for of, _ in (*drive, *program)}}
            self._meters = {name: one for name, one in measuring.items() if name in {of for of, _ in read}}
            sources = {name: one.drive for name, one in self._sources.items()}
            self._drive = _checked([*drive, *program], sources, "drive", every=True)  # those that are programmed come last
            self._read = _checked(read, {name: one.reading for name, one in self._meters.items()}, "read", every=False)
            inputs = joined("drive", [self._sources[name].drive for name, _ in drive], [k for _, k in drive])
            outputs = joined("reading", [self._meters[name].reading for name, _ in read], [k for _, k in read])
            held = [self._sources[name].drive for name, _ in program]
            params = joined("program", held, [k for _, k in program]) if program else None
            self._ports = [inputs] if params is None else [inputs, params]
            self._spec = Spec(inputs, outputs, params, provenance=provenance)
            self._watch = Watched(list(self._instruments.values()), auxiliaries, care, clock, inputs.name, self._forget)
            self._watch.lock_out()
            with self._watch.shot():
                self._set_up()
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> Spec:
        """Ports and provenance of the node."""
        return self._spec

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the instruments, for people."""
        return self._watch.notes

    # ---- the way of the data ----------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """(batch, K) in the unit of the input port -> (batch, L) in that of the output port, float32."""
        if self._closed:
            raise ContractError("the device is closed", where=self._spec.inputs.name, outputs="off")
        rows = self._spec.inputs.check(x).detach().to("cpu", torch.float32).double()
        if rows.ndim != 2:
            raise ContractError("a drive is (batch, channels)", where=self._spec.inputs.name, got=f"shape {tuple(x.shape)}")
        if not len(rows):
            return torch.empty(0, len(self._read))
        with self._moving():
            sweeper = self._sweeper
            found = [self._at(row) for row in rows] if sweeper is None else self._swept(sweeper, rows)
        return torch.tensor(found, dtype=torch.float32)

    def program(self, params: Tensor) -> None:
        """Bring the channels that are programmed to `params` (P,), in the unit of their port; they stay there.

        Raises:
            OutOfRange: before anything is sent. ContractError: nothing can be programmed, or the device is closed.
        """
        port = self._spec.params
        if port is None or self._closed:
            raise ContractError(
                "nothing can be programmed here" if port is None else "the device is closed", where=self._spec.inputs.name,
                got="program()", allowed="a bench with [node] program" if port is None else "", outputs="as they were",
            )  # fmt: skip
        wanted = port.check(params).detach().to("cpu", torch.float32).double().reshape(-1)
        self._programmed = wanted
        with self._moving():
            self._go(torch.cat([self._levels[: -len(wanted)], wanted]))
            self._wait(self._settings.program_settle_s)

    @property
    def reads_back(self) -> bool:
        """True if all instruments of the channels that are programmed measure what they hold."""
        owners = [self._sources[name] for name, _ in self._programs]
        return bool(owners) and all(isinstance(one, SelfMeasuring) and one.measures for one in owners)

    def held(self) -> Tensor:
        """Measure the channels that are programmed: (P,), in the unit of their port, float32.

        Raises:
            ContractError: their instruments do not measure them, or the device is closed.
        """
        self._readable()
        with self._watch.shot():
            self._set_up()
            names = dict.fromkeys(name for name, _ in self._programs)
            found = {name: one.measured() for name in names if isinstance(one := self._sources[name], SelfMeasuring)}
        return torch.tensor([found[name][k] for name, k in self._programs], dtype=torch.float32)

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        """Send the levels of some channels that are programmed once more, though the instruments were told them before.

        Args:
            params: (P,), what was programmed last.
            which: (P,) bool; the other channels of the same instruments are sent as they are.

        Raises:
            OutOfRange: before anything is sent. ContractError: other levels, they cannot be read back, or the device is closed.
        """
        port = self._readable()
        wanted = port.check(params).detach().to("cpu", torch.float32).double().reshape(-1)
        if self._programmed is None or not torch.equal(wanted, self._programmed):
            raise ContractError(
                "only what was programmed is written once more", where=port.name, got="other levels",
                allowed="those of the last program()", outputs="as they were",
            )  # fmt: skip
        with self._moving():
            for name in dict.fromkeys(name for (name, _), again in zip(self._programs, which.tolist(), strict=True) if again):
                self._tell(name, self._levels)
            self._wait(self._settings.program_settle_s)

    def _readable(self) -> Port:
        port = self._spec.params
        if self._closed or port is None or not self.reads_back:
            raise ContractError(
                "the device is closed" if self._closed else "what is programmed here cannot be read back",
                where=self._spec.inputs.name, allowed="" if self._closed else "[node] program of instruments that measure",
                outputs="off" if self._closed else "as they were",
            )  # fmt: skip
        return port

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Guard a change of levels: set up before, compared after; if it was half done, all of it is set up again."""
        with self._watch.shot():
            self._set_up()
            self._ready = False  # unless all of it comes to its end
            yield
            self._ready = True
            self._watch.settle()
            self._watch.due()

    def _at(self, row: Tensor) -> list[float]:
        """Go to one row (K,), settle, and read (L,)."""
        self._go(torch.cat([row, self._levels[len(row) :]]))
        self._wait(self._settings.settle_s)
        return self._measured()

    def _measured(self) -> list[float]:
        sums = [0.0] * len(self._read)
        for _ in range(self._settings.averages):
            found = {name: meter.read() for name, meter in self._meters.items()}
            sums = [total + found[name][k] for total, (name, k) in zip(sums, self._read, strict=True)]
        return [total / self._settings.averages for total in sums]

    def _go(self, row: Tensor) -> None:
        """Bring all channels from where they are to `row` (K + P,), in steps that every channel may make."""
        start, count, slews = self._levels, 1, False
        for port, way in zip(self._ports, self._parts((row - start).abs()), strict=True):
            if port.slews and bool(way.any()):
                most = limit_tensor(port.step_limit(self._settings.step_s) or math.inf, way)
                count, slews = max(count, math.ceil(float((way / most).max()) * (1 - 1e-9))), True
        for k in range(1, count + 1):
            self._send(row if k == count else torch.lerp(start, row, k / count), spaced=slews)

    def _parts(self, row: Tensor) -> Sequence[Tensor]:
        """The drive (K,) and, where something is programmed, that (P,)."""
        count = len(self._spec.inputs.resting())
        return [row] if len(self._ports) == 1 else [row[:count], row[count:]]

    def _send(self, row: Tensor, spaced: bool) -> None:
        """Set the channels to `row` (K + P,); the instruments whose channels all stay are left alone."""
        if spaced:
            self._wait(self._settings.step_s - (self._clock() - self._sent_s))
        for name in self._sources:
            if any(float(row[column]) != float(self._levels[column]) for column in self._columns(name)):
                self._tell(name, row)
        self._levels = row
        self._sent_s = self._clock()

    def _tell(self, name: str, row: Tensor) -> None:
        """Set all channels of one source as `row` (K + P,) says."""
        self._sources[name].levels([float(row[column]) for column in self._columns(name)])

    def _columns(self, name: str) -> list[int]:
        """Return the places in a row of the channels of one source, in their order."""
        return [column for _, column in sorted((k, column) for column, (of, k) in enumerate(self._drive) if of == name)]

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)

    @property
    def _sweeper(self) -> Sweeper | None:
        """The instrument that can do whole batches by itself."""
        (first, *more) = self._instruments.values()
        s, slews = self._settings, any(port.slews for port in self._ports)
        wanted = not more and s.lists and s.settle_s <= LONGEST_S and not slews
        return first if wanted and isinstance(first, Sweeper) else None

    def _swept(self, sweeper: Sweeper, rows: Tensor) -> list[list[float]]:
        """Answer (batch, K) by lists; what is programmed stays in all of them."""
        rows = torch.cat([rows, self._levels[rows.shape[1] :].expand(len(rows), -1)], 1)
        order = sorted(range(len(self._drive)), key=lambda column: self._drive[column][1])
        listed = rows[:, order].repeat_interleave(self._settings.averages, 0).tolist()
        found = sweeper.sweep(listed, self._settings.settle_s)
        self._levels = rows[-1]
        every = torch.tensor(found, dtype=torch.float64).view(len(rows), self._settings.averages, -1).mean(1)
        answer: list[list[float]] = every[:, [k for _, k in self._read]].tolist()
        return answer

    # ---- setting up, and the rungs of hil/devices/recovery.py -------------------------------------------------------------

    def _set_up(self) -> None:
        """Bring every instrument to its known state, the sources to rest, outputs on; send nothing if they are."""
        if self._ready:
            return
        for instrument in self._instruments.values():
            instrument.prepare()
        self._levels = torch.cat([port.resting().double() for port in self._ports])
        for name in self._sources:
            self._tell(name, self._levels)
        for instrument in self._instruments.values():
            if isinstance(instrument, Source):  # a source-meter measures while its output is on
                instrument.output(True)
        if self._programmed is not None:
            self._go(torch.cat([self._levels[: -len(self._programmed)], self._programmed]))
            self._wait(self._settings.program_settle_s)
        self._ready = True
        self._watch.begin()

    def _forget(self) -> None:
        self._ready = False
        for instrument in self._instruments.values():
            instrument.forget()

    def clear(self) -> None:
        """Empty all wires."""
        self._ready = False
        for instrument in self._instruments.values():
            instrument.clear()
        self._watch.beside.clear()

    def reopen(self) -> None:
        """Open all wires anew."""
        self._ready = False
        for instrument in self._instruments.values():
            instrument.reopen()
        self._watch.beside.reopen()

    def identify(self) -> str:
        """The same instruments must answer."""
        return "; ".join([*(one.identify() for one in self._instruments.values()), *self._watch.beside.identify()])

    def reinstate(self) -> None:
        """Outputs off and a reset, in safe order; then the auxiliaries, and every instrument as it was set, its outputs off."""
        self._forget()
        with self._watch.again():
            for instrument in self._instruments.values():
                instrument.prepare()

    def verify(self) -> str:
        """Check that every level reads back at rest, and that every meter gives a reading inside of its range."""
        self._set_up()
        self._spec.outputs.check(torch.tensor(self._measured(), dtype=torch.float64))
        changed = f"; changed by another hand: {self._watch.changed}" if self._watch.changed else ""
        programmed = "" if self._programmed is None else " or as programmed"
        return f"{len(self._drive)} levels read back at rest{programmed}, {len(self._read)} readings in range{changed}"

    def attend(self) -> None:
        """See hil.device.Attentive."""
        self._watch.attend()

    def close(self) -> None:
        """Make every instrument safe, and close its link, each whatever the others raise. Twice is fine.

        Raises:
            UnsafeOutputs: an output could not be verified to be off.
        """
        self._closed = True
        close_all([instrument.close for instrument in self._instruments.values()])


def joined(name: str, ports: Sequence[Port], channels: Sequence[int]) -> Port:
    """Join ports to one of many channels, each with the limits that it has in its own.

    Args:
        name: of the port.
        ports: of the instrument of each channel.
        channels: number of the channel in it, from 0.

    Raises:
        ConfigError: channels of several units.
    """
    units = list(dict.fromkeys(port.unit for port in ports))
    if len(units) > 1:
        raise ConfigError(
            "the channels of a port need one unit", where=name, got=", ".join(units), allowed="instruments of one kind",
            outputs="off; nothing was set",
        )  # fmt: skip

    def of(limit: Callable[[Port], Limit | None]) -> tuple[float, ...] | None:
        given = [limit(port) for port in ports]
        if all(one is None for one in given):
            return None
        return tuple(math.inf if one is None else each(one, port.size)[k] for one, port, k in zip(given, ports, channels))

    low, high = of(lambda port: port.low), of(lambda port: port.high)
    rest = tuple(float(port.resting()[k]) for port, k in zip(ports, channels, strict=True))
    assert low is not None
    assert high is not None
    rest = tuple(min(max(at, lo), hi) for at, lo, hi in zip(rest, low, high, strict=True))
    return Port(
        name, low, high, units[0], len(ports), max_step=of(lambda port: port.max_step),
        slew_per_s=of(lambda port: port.slew_per_s), rest=rest,
    )  # fmt: skip


def _checked(channels: Sequence[Channel], ports: Mapping[str, Port], role: str, every: bool) -> list[Channel]:
    """Channels that are all there, each once. Raises: ConfigError."""
    known = {(name, k) for name, port in ports.items() for k in range(port.size or 1)}
    wrong = [f"{name} {k + 1}" for name, k in channels if (name, k) not in known]
    twice = len(set(channels)) < len(channels)
    idle = [f"{name} {k + 1}" for name, k in sorted(known - set(channels))] if every else []
    if wrong or twice or idle or not channels:
        raise ConfigError(
            f"the channels of {role} make no sense", where="vector",
            got=f"no channel {', '.join(wrong)}" if wrong else "one twice" if twice else f"nobody drives {', '.join(idle)}",
            allowed=", ".join(f"{name} {k + 1}" for name, k in sorted(known)) or "a source and a meter", outputs="off",
            todo="name channels that the instruments have, and all that are switched on",
        )  # fmt: skip
    return list(channels)
