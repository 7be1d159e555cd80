"""The waveform shape: generators drive the node, scopes read it. drivers/waveform/device.py makes a Device of them.

[instruments.awg]    use = "drivers.keysight_33600:Keysight33600"        [instruments.scope]    use = "drivers.….:InfiniiVision"
[node]       drive = "awg", read = "scope"            names of instruments; several inputs and outputs of a node:
             drive = ["awg.1", "awg.2"], read = ["scope.2", "scope.1"]     in order, as "NAME.CHANNEL", or "NAME" for all of one
             drive = ["awg", "awg2"]                  the first generator gives the edge for all others and the scope
             sync = "scope.3"                         the channel that reads SYNC, for align = "sync" in [waveform]
[waveform]   symbol_rate = "100 MHz"                  how values become records: WaveformSettings
[memory]     nodes = 50, rest = "40 us"               the node remembers, and gets whole sequences: MemorySettings
[virtual]    seed, transport, linger_s, log_path, faults, specimen
[virtual.awg] [virtual.scope]    simulated instruments, by the names of [instruments]
Other instruments stand beside the node: hil/build/auxiliaries.py.
[virtual.node]                   the twin between them        [virtual.cable]    delay and load of the cables
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

from pydantic import PrivateAttr
from rich.console import Console
from torch import Tensor

from drivers.waveform.channels import Drive, Read
from drivers.waveform.device import MemorySettings, Stats, Waveform, WaveformSettings
from drivers.waveform.roles import parts, playing, taking
from hil.build.auxiliaries import Table, auxiliary_names, ordered
from hil.build.bench import (
    LINK_S,
    OnServed,
    Opened,
    Opening,
    check_address,
    lingering,
    provenance_of,
)
from hil.build.channels import channels, check_named, name_of, numbers
from hil.build.virtual import check_simulated, no_virtual, serve_all
from hil.build.virtual_waveform import VirtualTable, wired
from hil.config.bench import BenchFile
from hil.config.read import Holds, Section
from hil.config.resolve import UNTOUCHED, blaming, choice
from hil.device import Device, Limit
from hil.errors import ConfigError
from hil.wrapper import Wrapper
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import VirtualBench
from sim_devices.bench.served import ServedBench, spawn

LOOP = "calibration.loop.sequence:loop"  # the procedures of a node with memory


class Roles(Section):
    """[node]: which instrument does what.

    Args:
        drive: the instrument that drives the node; a list: the channel of each input, "NAME.CHANNEL" or "NAME".
        read: the one that reads it; a list: the channel of each output.
        sync: the channel that reads the generator's SYNC pulse, "NAME.CHANNEL", for align = "sync" in [waveform].
    """

    drive: str | tuple[str, ...]
    read: str | tuple[str, ...]
    sync: str | None = None

    @property
    def drives(self) -> tuple[str, ...]:
        """The channels of the inputs."""
        return (self.drive,) if isinstance(self.drive, str) else self.drive

    @property
    def reads(self) -> tuple[str, ...]:
        """The channels of the outputs."""
        return (self.read,) if isinstance(self.read, str) else self.read

    @property
    def syncs(self) -> tuple[str, ...]:
        """The channel that reads SYNC, or none."""
        return () if self.sync is None else (self.sync,)


class WaveformBench(BenchFile):
    """A bench file of the waveform shape.

    Args:
        node: what each instrument is for.
        waveform: how values become a record.
        memory: of a node that remembers; left out, it has no memory.
        virtual: the simulated side; left out, the bench is real.
    """

    node: Roles
    waveform: Annotated[dict[str, Any], Holds(WaveformSettings)]
    memory: Annotated[dict[str, Any], Holds(MemorySettings)] | None = None
    virtual: VirtualTable | None = None
    _settings: WaveformSettings | None = PrivateAttr(default=None)
    _sequences: MemorySettings | None = PrivateAttr(default=None)

    @property
    def record(self) -> WaveformSettings:
        """[waveform], checked."""
        assert self._settings is not None  # it was read from a file
        return self._settings

    @property
    def sequences(self) -> MemorySettings | None:
        """[memory], checked; None: there is none."""
        return self._sequences

    @property
    def remembers(self) -> bool:
        """True if there is a [memory]."""
        return self.memory is not None

    def settle(self, place: str) -> None:
        """Check the tables and roles, and find drivers and virtual bench.

        Raises:
            ConfigError: a role that names no instrument, or a class or setting that makes no sense.
        """
        super().settle(place)
        self._settings = choice("waveform", self.waveform, f"{place}: [waveform]", made=WaveformSettings).build()
        if self.memory is not None:
            self._sequences = choice("memory", self.memory, f"{place}: [memory]", made=MemorySettings).build()
        for key, named in (("drive", self.node.drives), ("read", self.node.reads), ("sync", self.node.syncs)):
            check_named(self, named, key)
        check_simulated(self, self.virtual, (*self.roles, *auxiliary_names(self, self.roles)))

    def agree(self) -> None:
        """Check what relates tables to each other.

        Raises:
            ConfigError: SYNC, or a memory, of which one table speaks and another one does not.
        """
        super().agree()
        self._check_sync()
        self._check_memory()

    def _check_sync(self) -> None:
        """Raises: ConfigError: SYNC is to be read and nobody says where, or the other way around; or it is several channels."""
        align, sync = self.record.align, self.node.sync
        if (align == "sync") != (sync is not None) or (sync is not None and len(list(numbers([sync], self))) != 1):
            raise ConfigError(
                'align = "sync" and the channel that reads SYNC go together', where=f"{self.place}: [node] sync",
                got=f"{'no sync' if sync is None else repr(sync)}, align = {align!r} in [waveform]", outputs=UNTOUCHED,
                allowed='both, with one channel as "scope.3"; or neither', todo="correct one of them",
            )  # fmt: skip

    def _check_memory(self) -> None:
        """Raises: ConfigError: [memory] for several channels, or for a twin without memory; or the other way around."""
        told = self._sequences
        if told is not None and self.counts != (1, 1):
            raise ConfigError(
                "a node with memory has one drive and one reading", where=f"{self.place}: [node]", outputs=UNTOUCHED,
                got=f"{self.counts[0]} drives, {self.counts[1]} readings", allowed="one of each", todo="correct [node]",
            )  # fmt: skip
        for table in (self.twin, None if self.virtual is None else self.virtual.node):
            spec = None if table is None else table.choice.build().spec
            if table is None or spec is None:
                continue
            if spec.memory != (told is not None):
                raise ConfigError(
                    "this twin remembers, and the bench does not say so" if spec.memory else
                    "the bench has a [memory], and this twin does not remember", where=table.place, got=table.use,
                    allowed="a twin with memory and [memory], or neither", outputs=UNTOUCHED,
                    todo="add [memory] with nodes and rest, or name another twin" if spec.memory else "name another twin",
                )  # fmt: skip
            if told is not None and spec.inputs.size != told.nodes:
                raise ConfigError(
                    "the twin has another number of virtual nodes", where=f"{table.place} nodes", got=f"{spec.inputs.size}",
                    allowed=f"{told.nodes}, as in [memory]", outputs=UNTOUCHED, todo="correct one of them",
                )  # fmt: skip

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the instruments that have a role, each once."""
        return tuple(dict.fromkeys(name_of(one) for one in (*self.node.drives, *self.node.reads, *self.node.syncs)))

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many inputs and outputs the node has."""
        return len(list(numbers(self.node.drives, self))), len(list(numbers(self.node.reads, self)))

    @property
    def sequence(self) -> str:
        """The procedures of the shape are for one input and one output; a node with memory has its own."""
        if self.remembers:
            return self.calibration.procedures or LOOP
        return super().sequence if self.counts == (1, 1) else self.calibration.procedures or ""


class OnPlant(Wrapper, OnServed):
    """The device of a virtual bench: driven over the wire like a real one, its plant's state saved over the control port."""

    _inner: Waveform

    def __init__(self, inner: Waveform, served: ServedBench) -> None:
        Wrapper.__init__(self, inner)
        OnServed.__init__(self, inner, served, "virtual bench")

    @property
    def control(self) -> ControlClient:
        """Control channel of the plant: it says what is true, for those who judge what was measured."""
        return self._served.control

    @property
    def time_s(self) -> float:
        """Time of the plant, s; see hil.device.OwnTime."""
        return self.control.get("time_s")

    @property
    def from_rest(self) -> bool:
        """See hil.device.Resting."""
        return self._inner.from_rest

    @property
    def stats(self) -> Stats:
        """Counts and times since the device opened."""
        return self._inner.stats

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Submit a batch to the waveform device; see hil.device.Streaming."""
        return self._inner.submit(x)

    def edge(self, shift_s: float = 0.0) -> tuple[Tensor, Tensor]:
        """Play the edge once; see hil.device.Timed."""
        return self._inner.edge(shift_s)

    def follow(self, offset: Limit, period: Limit | None = None) -> None:
        """Move the levels that the device adds by itself; see hil.device.Following."""
        self._inner.follow(offset, period)

    def attend(self) -> None:
        """Look after the instruments between shots; see hil.device.Attentive."""
        self._inner.attend()

    def snapshot(self) -> Mapping[str, object]:
        """Save the plant only: what the instruments hold is set up again by their drivers.

        Raises:
            LinkError: the bench is gone, and its plant's state with it.
        """
        return self.control.snapshot(boxes=False)

    def restore(self, state: Mapping[str, object]) -> None:
        """Return plant and virtual instruments to the state of a snapshot."""
        self.control.restore(state)


class WaveformShape:
    """Generators and scopes around one node, shared in time by all neurons."""

    Bench: ClassVar[type[BenchFile]] = WaveformBench
    calibration: ClassVar[str] = "calibration.waveform.sequence:waveform"

    @contextmanager
    def open(self, bench: WaveformBench, opening: Opening) -> Iterator[Opened]:
        """See hil.build.bench.Shape."""
        patience, care, settings, roles = opening.patience, opening.care, bench.record, bench.node
        names = (*bench.roles, *auxiliary_names(bench, bench.roles))
        longest_s = max(bench.instruments[name].timeout_s or LINK_S for name in bench.roles)
        opening.check_silence(settings.trigger_timeout_s + settings.longest_delay_s + 2 * longest_s, "[waveform]")
        for name in names:
            check_address(bench.instruments[name], bench.virtual is not None, "TCPIP::…")
        described = lingering(description(bench), opening.run) if bench.virtual is not None else None
        with blaming(bench.virtual.place if bench.virtual is not None else bench.place):
            served = None if described is None else opening.stack.enter_context(spawn(described))
        table = Table(opening, names, bench.roles, served)
        with blaming(f"{bench.place}: [node]"):
            drive = [Drive(playing(table.drivers[name]), k) for name, k in channels(roles.drives, table.drivers)]
            read = [Read(taking(table.drivers[name]), k) for name, k in channels(roles.reads, table.drivers)]
            sync = next((Read(taking(table.drivers[name]), k) for name, k in channels(roles.syncs, table.drivers)), None)
        auxiliaries = table.watched([name_of(one) for one in roles.drives])
        auxiliaries.start()
        origin = provenance_of(bench, table.found)
        order = [part for name in ordered(bench.roles, bench.safe.order) for part in parts(table.drivers[name])]
        with blaming(f"{bench.place}: [waveform]"):
            waveform = Waveform(
                drive, read, settings, origin, care=care, auxiliaries=auxiliaries, order=order, memory=bench.sequences,
                sync=sync,
            )  # fmt: skip
        table.closed_by(waveform.close, bench.roles)
        device: Device = waveform if served is None else OnPlant(waveform, served)
        node = {} if bench.virtual is None else {"use": bench.virtual.node.use, **bench.virtual.node.settings()}
        facts = {"bench": bench.name, **node}
        yield Opened(device, None, facts, table.lines, table.guard, bench.twin, patience, table.found, origin, waveform.notes)

    def settings(self, bench: WaveformBench) -> Mapping[str, Mapping[str, Any]]:
        """Return [waveform], [memory], and [node] of several channels: they decide what is measured."""
        node = {"node": {"drive": bench.node.drives, "read": bench.node.reads}} if bench.counts != (1, 1) else {}
        memory = {} if bench.sequences is None else {"memory": asdict(bench.sequences)}
        return {**node, "waveform": asdict(bench.record), **memory}

    def serve(self, bench: WaveformBench, out: Console) -> None:
        """See hil.build.bench.Shape."""
        serve_all(description(bench), bench.virtual, out)

    def pace(self, bench: WaveformBench) -> tuple[float, int]:
        """See hil.build.bench.Paced."""
        record = bench.record
        return record.averages / (record.symbol_rate_hz * bench.counts[0]), record.reads

    def conversing(self, bench: WaveformBench) -> tuple[tuple[str, ...], VirtualBench | None]:
        """See hil.build.bench.Conversing."""
        return bench.roles, description(bench) if bench.simulated else None


def description(bench: WaveformBench) -> VirtualBench:
    """The simulated side of `bench`.

    Raises:
        ConfigError: the file has none, or its settings are wrong.
    """
    if bench.virtual is None:
        raise no_virtual(bench)
    drives, reads, syncs = (list(numbers(named, bench)) for named in (bench.node.drives, bench.node.reads, bench.node.syncs))
    return wired(bench.virtual, drives, reads, syncs[0] if syncs else None)
