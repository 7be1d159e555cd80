"""The waveform shape: generators drive the node, scopes read it. drivers/waveform/device.py makes a Device of them.

[instruments.awg]    use = "drivers.keysight_33600:Keysight33600"        [instruments.scope]    use = "drivers.….:InfiniiVision"
[node]       drive = "awg", read = "scope"            names of instruments; several inputs and outputs of a node:
             drive = ["awg.1", "awg.2"], read = ["scope.2", "scope.1"]     in order, as "NAME.CHANNEL", or "NAME" for all of one
             drive = ["awg", "awg2"]                  the first generator gives the edge for all others and the scope
[waveform]   symbol_rate = "100 MHz"                  how values become records: WaveformSettings
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
from drivers.waveform.device import Stats, Waveform, WaveformSettings
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
from hil.config.resolve import blaming, choice
from hil.device import Device, Limit
from hil.wrapper import Wrapper
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import VirtualBench
from sim_devices.bench.served import ServedBench, spawn


class Roles(Section):
    """[node]: which instrument does what.

    Args:
        drive: the instrument that drives the node; a list: the channel of each input, "NAME.CHANNEL" or "NAME".
        read: the one that reads it; a list: the channel of each output.
    """

    drive: str | tuple[str, ...]
    read: str | tuple[str, ...]

    @property
    def drives(self) -> tuple[str, ...]:
        """The channels of the inputs."""
        return (self.drive,) if isinstance(self.drive, str) else self.drive

    @property
    def reads(self) -> tuple[str, ...]:
        """The channels of the outputs."""
        return (self.read,) if isinstance(self.read, str) else self.read


class WaveformBench(BenchFile):
    """A bench file of the waveform shape.

    Args:
        node: what each instrument is for.
        waveform: how values become a record.
        virtual: the simulated side; left out, the bench is real.
    """

    node: Roles
    waveform: Annotated[dict[str, Any], Holds(WaveformSettings)]
    virtual: VirtualTable | None = None
    _settings: WaveformSettings | None = PrivateAttr(default=None)

    @property
    def record(self) -> WaveformSettings:
        """[waveform], checked."""
        assert self._settings is not None  # it was read from a file
        return self._settings

    def settle(self, place: str) -> None:
        """Check the tables and roles, and find drivers and virtual bench.

        Raises:
            ConfigError: a role that names no instrument, or a class or setting that makes no sense.
        """
        super().settle(place)
        self._settings = choice("waveform", self.waveform, f"{place}: [waveform]", made=WaveformSettings).build()
        for key, named in (("drive", self.node.drives), ("read", self.node.reads)):
            check_named(self, named, key)
        check_simulated(self, self.virtual, (*self.roles, *auxiliary_names(self, self.roles)))

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the instruments that have a role, each once."""
        return tuple(dict.fromkeys(name_of(one) for one in (*self.node.drives, *self.node.reads)))

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many inputs and outputs the node has."""
        return len(list(numbers(self.node.drives, self))), len(list(numbers(self.node.reads, self)))

    @property
    def sequence(self) -> str:
        """The procedures of the shape are for one input and one output."""
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
            drive = [Drive(table.drivers[name], k) for name, k in channels(roles.drives, table.drivers)]
            read = [Read(table.drivers[name], k) for name, k in channels(roles.reads, table.drivers)]
        auxiliaries = table.watched([name_of(one) for one in roles.drives])
        auxiliaries.start()
        origin = provenance_of(bench, table.found)
        order = [table.drivers[name] for name in ordered(bench.roles, bench.safe.order)]
        with blaming(f"{bench.place}: [waveform]"):
            waveform = Waveform(drive, read, settings, origin, care=care, auxiliaries=auxiliaries, order=order)
        table.closed_by(waveform.close, bench.roles)
        device: Device = waveform if served is None else OnPlant(waveform, served)
        node = {} if bench.virtual is None else {"use": bench.virtual.node.use, **bench.virtual.node.settings()}
        facts = {"bench": bench.name, **node}
        yield Opened(device, None, facts, table.lines, table.guard, bench.twin, patience, table.found, origin, waveform.notes)

    def settings(self, bench: WaveformBench) -> Mapping[str, Mapping[str, Any]]:
        """Return [waveform], and [node] of several channels: they decide what is measured."""
        node = {"node": {"drive": bench.node.drives, "read": bench.node.reads}} if bench.counts != (1, 1) else {}
        return {**node, "waveform": asdict(bench.record)}

    def serve(self, bench: WaveformBench, out: Console) -> None:
        """See hil.build.bench.Shape."""
        serve_all(description(bench), bench.virtual, out)


def description(bench: WaveformBench) -> VirtualBench:
    """The simulated side of `bench`.

    Raises:
        ConfigError: the file has none, or its settings are wrong.
    """
    if bench.virtual is None:
        raise no_virtual(bench)
    return wired(bench.virtual, list(numbers(bench.node.drives, bench)), list(numbers(bench.node.reads, bench)))
