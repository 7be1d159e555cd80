"""The vector shape: K levels on any instruments drive the node, L readings come from any meters. drivers/vector/device.py.

[instruments.bias]  use = "drivers.keysight_e36300:KeysightE36312A", channels = [1, 2], high = ["1 V", "2 V"], slew, max_step
[instruments.meter] use = "drivers.keithley_2400:Keithley2400", range = "1 mA"
[node]       drive = ["bias.2", "bias.1"]     inputs of the node, in order: "NAME.CHANNEL", or "NAME" for all of an instrument
             read = ["meter"]                 its outputs, in order, in the same way
[vector]     settle = "10 ms", averages, step, lists                    VectorSettings
[virtual]    seed, transport, linger_s, log_path, faults, per_volt, a_per_unit
[virtual.NAME]      simulated instruments             [virtual.node]      the twin between them
Other instruments stand beside the node: hil/build/auxiliaries.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr
from rich.console import Console

from drivers.vector.device import Channel, Vector, VectorSettings
from hil.build.auxiliaries import Table, auxiliary_names, ordered
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
from hil.config.resolve import UNTOUCHED, blaming, choice
from hil.device import Device
from hil.errors import ConfigError
from hil.wrapper import Wrapper
from sim_devices.bench.description import Part, VirtualBench, VirtualGrid
from sim_devices.bench.served import ServedBench, build, spawn


class Roles(Section):
    """[node]: which instrument does what.

    Args:
        drive: the channel of each input, "NAME.CHANNEL"; "NAME": all channels of that instrument.
        read: the channel of each output, in the same way.
    """

    drive: tuple[str, ...]
    read: tuple[str, ...]


class VirtualTable(BenchTable):
    """The simulated side of a bench: which boxes, which node, how they are served.

    Args:
        per_volt: unit of the node's inputs for a V.
        a_per_unit: A for a unit of the node's outputs, as of a photodiode.
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
        return tuple(dict.fromkeys(_name(one) for one in (*self.node.drive, *self.node.read)))

    def settle(self, place: str) -> None:
        """Check the tables and roles.

        Raises:
            ConfigError: a role that names no instrument, or a setting that makes no sense.
        """
        super().settle(place)
        self._settings = choice("vector", self.vector, f"{place}: [vector]", made=VectorSettings).build()
        for key, named in (("drive", self.node.drive), ("read", self.node.read)):
            for one in named:
                role(self, _name(one), key)
                if "." in one and not one.rpartition(".")[2].isdigit():
                    raise ConfigError(
                        "no channel of an instrument", where=f"{place}: [node] {key}", got=f'"{one}"',
                        allowed='"NAME" or "NAME.CHANNEL", as "bias.2"', outputs=UNTOUCHED, todo="correct the name",
                    )  # fmt: skip
        check_simulated(self, self.virtual, (*self.roles, *auxiliary_names(self, self.roles)))


class OnGrid(Wrapper, OnServed):
    """The device of a virtual bench: driven over the wire like a real one, its plant's state saved over the control port."""

    _inner: Vector

    def __init__(self, inner: Vector, served: ServedBench) -> None:
        Wrapper.__init__(self, inner)
        OnServed.__init__(self, inner, served, "virtual bench")

    def attend(self) -> None:
        """Look after the instruments between shots; see hil.device.Attentive."""
        self._inner.attend()

    def snapshot(self) -> Mapping[str, object]:
        """Save the plant only: what the instruments hold is set up again by their drivers.

        Raises:
            LinkError: the bench is gone, and its plant's state with it.
        """
        return self._served.control.snapshot(boxes=False)

    def restore(self, state: Mapping[str, object]) -> None:
        """Return the plant to the state of a snapshot."""
        self._served.control.restore(state)


class VectorShape:
    """Sources and meters around one node."""

    Bench: ClassVar[type[BenchFile]] = VectorBench
    calibration: ClassVar[str] = ""

    @contextmanager
    def open(self, bench: VectorBench, opening: Opening) -> Iterator[Opened]:
        """See hil.build.bench.Shape."""
        patience, care = opening.patience, opening.care
        names = (*bench.roles, *auxiliary_names(bench, bench.roles))
        longest_s = max(bench.instruments[name].timeout_s or LINK_S for name in bench.roles)
        opening.check_silence(bench.timing.settle_s + 2 * longest_s, "[vector]")
        for name in names:
            check_address(bench.instruments[name], bench.virtual is not None, "TCPIP::…")
        described = lingering(description(bench), opening.run) if bench.virtual is not None else None
        with blaming(bench.virtual.place if bench.virtual is not None else bench.place):
            served = None if described is None else opening.stack.enter_context(spawn(described))
        table = Table(opening, names, bench.roles, served)
        with blaming(f"{bench.place}: [node]"):
            drive = list(channels(bench.node.drive, table.drivers))
            read = list(channels(bench.node.read, table.drivers))
        auxiliaries = table.watched([name for name, _ in drive])
        auxiliaries.start()
        origin = provenance_of(bench, table.found)
        instruments = {name: table.drivers[name] for name in ordered(bench.roles, bench.safe.order)}
        with blaming(f"{bench.place}: [node]"):
            vector = Vector(instruments, drive, read, bench.timing, origin, care, auxiliaries)
        device: Device = vector if served is None else OnGrid(vector, served)
        node = {} if bench.virtual is None else {"use": bench.virtual.node.use, **bench.virtual.node.settings()}
        facts = {"bench": bench.name, **node}
        yield Opened(device, None, facts, table.lines, table.guard, bench.twin, patience, table.found, origin, vector.notes)

    def settings(self, bench: VectorBench) -> Mapping[str, Mapping[str, Any]]:
        """Return [node] and [vector]: they decide what is measured."""
        return {"node": {"drive": bench.node.drive, "read": bench.node.read}, "vector": asdict(bench.timing)}

    def serve(self, bench: VectorBench, out: Console) -> None:
        """See hil.build.bench.Shape."""
        with build(replace(description(bench), transport="both")) as running:
            tell(running.resources, running.sockets, running.control.address, out)
            until_interrupted(out)


def channels(named: Sequence[str], drivers: Mapping[str, Any]) -> Iterator[Channel]:
    """The channels that [node] names, each as instrument and place, from 0, in the `channels` of its driver.

    Raises:
        ConfigError: the driver does not use this channel.
    """
    for one in named:
        name, number = _name(one), one.partition(".")[2]
        known = tuple(getattr(drivers[name], "channels", (1,)))
        if number and int(number) not in known:
            raise ConfigError(
                "the instrument does not use this channel", where=f'"{one}"', got=f"channels = {list(known)}",
                allowed=", ".join(f"{name}.{k}" for k in known), outputs="off; nothing was set",
                todo=f"add it to channels in [instruments.{name}], or name another",
            )  # fmt: skip
        yield from ((name, k) for k in ([known.index(int(number))] if number else range(len(known))))


def description(bench: VectorBench) -> VirtualBench:
    """The simulated side of `bench`.

    Raises:
        ConfigError: the file has none.
    """
    table = bench.virtual
    if table is None:
        raise ConfigError(
            "this bench is real", where=bench.place, got="no [virtual] tables", outputs=UNTOUCHED,
            todo="a virtual bench has [virtual.NAME] for each instrument, and [virtual.node]",
        )  # fmt: skip
    sources = tuple(_output(one) for whole in bench.node.drive for one in _each(whole, bench))
    meters = tuple(_name(one) for one in bench.node.read)
    node = Part(table.node.use, table.node.choice.settings)
    grid = VirtualGrid(sources, meters, node, table.per_volt, table.a_per_unit)
    return VirtualBench(
        table.described, (), table.transport, table.seed, linger_s=table.linger_s, log_path=table.log_path,
        faults=table.faults, grids=(grid,), feeds=table.feeds,
    )  # fmt: skip


def _each(named: str, bench: VectorBench) -> list[str]:
    """`named`, or every channel of the instrument that it names, before there is a driver: its setting `channels`."""
    if "." in named:
        return [named]
    choice = bench.instruments[named].choice
    defaults = getattr(choice.made.__init__, "__kwdefaults__", None) or {}
    return [f"{named}.{k}" for k in choice.settings.get("channels", defaults.get("channels", (1,)))]


def _output(named: str) -> tuple[str, int]:
    return _name(named), int(named.rpartition(".")[2])


def _name(named: str) -> str:
    return named.partition(".")[0]
