"""The vector shape: K levels on any instruments drive the node, L readings come from any meters. drivers/vector/device.py.

[instruments.bias]  use = "drivers.keysight_e36300:KeysightE36312A", channels = [1, 2], high = ["1 V", "2 V"], slew, max_step
[instruments.meter] use = "drivers.keithley_2400:Keithley2400", range = "1 mA"
[node]       drive = ["bias.2", "bias.1"]     inputs of the node, in order: "NAME.CHANNEL", or "NAME" for all of an instrument
             read = ["meter"]                 its outputs, in order, in the same way
             program = ["heaters"]            what is programmed, as the heaters of a mesh; left out: nothing is
[vector]     settle = "10 ms", program_settle, averages, step, lists                    VectorSettings
[virtual]    seed, transport, linger_s, log_path, faults, per_volt, a_per_unit
[virtual.NAME]      simulated instruments             [virtual.node]      the twin between them
Other instruments stand beside the node: hil/build/auxiliaries.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr
from rich.console import Console

from drivers.vector.device import Vector, VectorSettings
from hil.build.auxiliaries import Table, auxiliary_names, ordered
from hil.build.bench import (
    LINK_S,
    Opened,
    Opening,
    check_address,
    lingering,
    provenance_of,
)
from hil.build.channels import channels, check_named, name_of, numbers
from hil.build.virtual import BenchTable, OnPlant, check_simulated, no_virtual, serve_all
from hil.config.bench import BenchFile
from hil.config.read import Holds, Section
from hil.config.resolve import blaming, choice
from hil.device import Device
from sim_devices.bench.description import Part, VirtualBench, VirtualGrid
from sim_devices.bench.served import spawn


class Roles(Section):
    """[node]: which instrument does what.

    Args:
        drive: the channel of each input, "NAME.CHANNEL"; "NAME": all channels of that instrument.
        read: the channel of each output, in the same way.
        program: the channel of each parameter that is programmed, in the same way.
    """

    drive: tuple[str, ...]
    read: tuple[str, ...]
    program: tuple[str, ...] = ()


class VirtualTable(BenchTable):
    """The simulated side of a bench: which boxes, which node, how they are served.

    Args:
        per_volt: unit of the node's inputs for a V.
        a_per_unit: A, or the unit of the meters, for a unit of the node's outputs, as of a photodiode.
    """

    per_volt: float = 1.0
    a_per_unit: float = 1.0


class VectorBench(BenchFile):
    """A bench file of the vector shape.

    Args:
        node: what each channel is for.
        vector: how levels are set and read.
        virtual: the simulated side; left out, the bench is real.
    """

    node: Roles
    vector: Annotated[dict[str, Any], Holds(VectorSettings)] = Field(default_factory=dict)
    virtual: VirtualTable | None = None
    _settings: VectorSettings | None = PrivateAttr(default=None)

    @property
    def timing(self) -> VectorSettings:
        """[vector], checked."""
        assert self._settings is not None  # it was read from a file
        return self._settings

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the instruments that have a role, each once."""
        return tuple(dict.fromkeys(name_of(one) for one in (*self.node.drive, *self.node.program, *self.node.read)))

    def settle(self, place: str) -> None:
        """Check the tables and roles.

        Raises:
            ConfigError: a role that names no instrument, or a setting that makes no sense.
        """
        super().settle(place)
        self._settings = choice("vector", self.vector, f"{place}: [vector]", made=VectorSettings).build()
        for key, named in (("drive", self.node.drive), ("program", self.node.program), ("read", self.node.read)):
            check_named(self, named, key)
        check_simulated(self, self.virtual, (*self.roles, *auxiliary_names(self, self.roles)))


class VectorShape:
    """Sources and meters around one node."""

    Bench: ClassVar[type[BenchFile]] = VectorBench
    calibration: ClassVar[str] = "calibration.vector.sequence:vector"

    @contextmanager
    def open(self, bench: VectorBench, opening: Opening) -> Iterator[Opened]:
        """See hil.build.bench.Shape."""
        patience, care = opening.patience, opening.care
        names = (*bench.roles, *auxiliary_names(bench, bench.roles))
        longest_s = max(bench.instruments[name].timeout_s or LINK_S for name in bench.roles)
        opening.check_silence(max(bench.timing.settle_s, bench.timing.program_settle_s) + 2 * longest_s, "[vector]")
        for name in names:
            check_address(bench.instruments[name], bench.virtual is not None, "TCPIP::…")
        described = lingering(description(bench), opening.run) if bench.virtual is not None else None
        with blaming(bench.virtual.place if bench.virtual is not None else bench.place):
            served = None if described is None else opening.stack.enter_context(spawn(described))
        table = Table(opening, names, bench.roles, served)
        with blaming(f"{bench.place}: [node]"):
            drive = list(channels(bench.node.drive, table.drivers))
            read = list(channels(bench.node.read, table.drivers))
            program = list(channels(bench.node.program, table.drivers))
        auxiliaries = table.watched([name for name, _ in (*drive, *program)])
        auxiliaries.start()
        origin = provenance_of(bench, table.found)
        instruments = {name: table.drivers[name] for name in ordered(bench.roles, bench.safe.order)}
        with blaming(f"{bench.place}: [node]"):
            vector = Vector(instruments, drive, read, bench.timing, origin, care, auxiliaries, program)
        device: Device = vector if served is None else OnPlant(vector, served)
        node = {} if bench.virtual is None else {"use": bench.virtual.node.use, **bench.virtual.node.settings()}
        facts = {"bench": bench.name, **node}
        yield Opened(device, None, facts, table.lines, table.guard, bench.twin, patience, table.found, origin, vector.notes)

    def settings(self, bench: VectorBench) -> Mapping[str, Mapping[str, Any]]:
        """Return [node] and [vector]: they decide what is measured."""
        return {"node": bench.node.model_dump(), "vector": asdict(bench.timing)}

    def serve(self, bench: VectorBench, out: Console) -> None:
        """See hil.build.bench.Shape."""
        serve_all(description(bench), bench.virtual, out)

    def conversing(self, bench: VectorBench) -> tuple[tuple[str, ...], VirtualBench | None]:
        """See hil.build.bench.Conversing."""
        return bench.roles, description(bench) if bench.simulated else None


def description(bench: VectorBench) -> VirtualBench:
    """The simulated side of `bench`.

    Raises:
        ConfigError: the file has none.
    """
    table = bench.virtual
    if table is None:
        raise no_virtual(bench)
    sources, meters, programs = (
        tuple(numbers(named, bench)) for named in (bench.node.drive, bench.node.read, bench.node.program)
    )
    node = Part(table.node.use, table.node.choice.settings)
    grid = VirtualGrid(sources, meters, node, table.per_volt, table.a_per_unit, programs)
    return table.bench(grids=(grid,))
