"""The waveform shape: a generator drives the node, a scope reads it. drivers/waveform/device.py makes a Device of the two.

[instruments.awg]    use = "drivers.keysight_33600:Keysight33600"        [instruments.scope]    use = "drivers.….:InfiniiVision"
[node]       drive = "awg", read = "scope"            names of instruments
[waveform]   symbol_rate = "100 MHz"                  how values become records: WaveformSettings
[virtual]    seed, transport, linger_s, log_path, faults, specimen
[virtual.awg] [virtual.scope]    simulated instruments, by the names of [instruments]
Other instruments stand beside the node: hil/build/auxiliaries.py.
[virtual.node]                   the twin between them        [virtual.cable]    delay and load of the cable
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr
from rich.console import Console
from torch import Tensor

from drivers.waveform.device import Stats, Waveform, WaveformSettings
from hil.build.auxiliaries import Table, auxiliary_names
from hil.build.bench import (
    LINK_S,
    OnServed,
    Opened,
    Opening,
    check_address,
    lingering,
    provenance_of,
    role,
    until_interrupted,
)
from hil.build.virtual import BenchTable, check_simulated, tell
from hil.config.bench import BenchFile
from hil.config.read import Holds, Section
from hil.config.resolve import UNTOUCHED, Choice, blaming, choice
from hil.device import Device
from hil.errors import ConfigError
from hil.wrapper import Wrapper
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import Part, VirtualBench, VirtualWire
from sim_devices.bench.served import ServedBench, build, spawn
from sim_devices.bench.specimen import CABLE, node_specimen, specimen
from sim_devices.bench.wiring import Cable


class Roles(Section):
    """[node]: which instrument does what.

    Args:
        drive: the instrument that drives the node.
        read: the one that reads it.
    """

    drive: str
    read: str


class VirtualTable(BenchTable):
    """The simulated side of a bench: which boxes, which node, how they are served.

    Args:
        specimen: the node and the cable stray from these tables as a specimen does, drawn from this number; left out: they
            are as they stand here.
        cable: the way from the generator through the node to the scope.
    """

    specimen: Annotated[int, Field(ge=0, strict=True)] | None = None
    cable: Annotated[dict[str, Any], Holds(Cable)] = Field(default_factory=dict)
    _line: Choice | None = PrivateAttr(default=None)

    def settle(self, place: str) -> None:
        """Find the classes of the boxes, and check the cable."""
        super().settle(place)
        self._line = choice("cable", self.cable, f"{place[:-1]}.cable]", made=Cable)

    @property
    def line(self) -> Mapping[str, Any]:
        """Delay and load of the cable, in SI units."""
        assert self._line is not None  # it was read from a file
        return self._line.settings


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
        for key, name in (("drive", self.node.drive), ("read", self.node.read)):
            role(self, name, key)
        check_simulated(self, self.virtual, (self.node.drive, self.node.read, *auxiliary_names(self, self.roles)))

    @property
    def roles(self) -> tuple[str, str]:
        """Names of the instruments that have a role."""
        return self.node.drive, self.node.read


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

    def follow(self, offset: float, period: float | None = None) -> None:
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
    """A generator and a scope around one node, shared in time by all neurons."""

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
        generator, digitizer = table.drivers[roles.drive], table.drivers[roles.read]
        auxiliaries = table.watched((roles.drive,))
        auxiliaries.start()
        origin = provenance_of(bench, table.found)
        with blaming(f"{bench.place}: [waveform]"):
            waveform = Waveform(generator, digitizer, settings, origin, care=care, auxiliaries=auxiliaries)
        table.closed_by(waveform.close, bench.roles)
        device: Device = waveform if served is None else OnPlant(waveform, served)
        node = {} if bench.virtual is None else {"use": bench.virtual.node.use, **bench.virtual.node.settings()}
        facts = {"bench": bench.name, **node}
        yield Opened(device, None, facts, table.lines, table.guard, bench.twin, patience, table.found, origin, waveform.notes)

    def settings(self, bench: WaveformBench) -> Mapping[str, Mapping[str, Any]]:
        """Return [waveform]: it decides what is measured."""
        return {"waveform": asdict(bench.record)}

    def serve(self, bench: WaveformBench, out: Console) -> None:
        """See hil.build.bench.Shape."""
        with build(replace(description(bench), transport="both")) as running:
            tell(running.resources, running.sockets, running.control.address, out)
            until_interrupted(out)


def description(bench: WaveformBench) -> VirtualBench:
    """The simulated side of `bench`.

    Raises:
        ConfigError: the file has none, or its settings are wrong.
    """
    table = bench.virtual
    if table is None:
        raise ConfigError(
            "this bench is real", where=bench.place, got="no [virtual] tables", outputs=UNTOUCHED,
            todo=f"a virtual bench has [virtual.{bench.node.drive}], [virtual.{bench.node.read}] and [virtual.node]",
        )  # fmt: skip
    settings, cable = dict(table.node.choice.settings), dict(table.line)
    if table.specimen is not None:
        settings = node_specimen(table.node.choice.build(), table.specimen, table.place)
        cable |= specimen({"delay_s": cable.get("delay_s", 0.0)}, CABLE, table.specimen)
    wire = VirtualWire(bench.node.drive, bench.node.read, Part(table.node.use, settings), **cable)
    return VirtualBench(
        table.described, (wire,), table.transport, table.seed, linger_s=table.linger_s, log_path=table.log_path,
        faults=table.faults, feeds=table.feeds,
    )  # fmt: skip
