"""The tables of a simulated bench that its shapes share: [virtual], and [virtual.NAME] for the instrument of that name.

[virtual]            seed, transport, linger_s, log_path, faults, port_mapper, announce
[virtual.node]       the twin
[virtual.NAME]       use, and the settings of a simulated instrument; feeds: a parameter of the twin that follows its output
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field, PrivateAttr, model_validator
from rich.console import Console

from hil.build.bench import OnServed, until_interrupted
from hil.config.bench import BenchFile, TwinTable
from hil.config.read import Holds, Section, Using
from hil.config.resolve import SIMULATED, UNTOUCHED, Choice, choice
from hil.device import Attentive, Device, Recoverable
from hil.errors import ConfigError
from hil.wrapper import Wrapper
from sim_devices.bench.description import VirtualBench, VirtualBox, VirtualGrid, VirtualScene, VirtualWire
from sim_devices.bench.outputs import Feed
from sim_devices.bench.served import ServedBench, build
from sim_devices.instruments.timing import Timing


class FeedTable(Section):
    """Effect of output 1 of a simulated instrument on the plant: parameter = max(least, offset + scale * level).

    Args:
        path: of the parameter, "node.laser_w".
        scale: for a unit of the level.
        offset: at level 0.
        least: the parameter goes no lower.
    """

    path: str
    scale: float = 1.0
    offset: float = 0.0
    least: float | None = None


class AloneTable(Using):
    """A simulated instrument that feeds nothing."""

    def chosen(self) -> Choice:
        """Find the class of a simulated instrument and check its settings."""
        return choice(self.use, self.settings(), self.place, skip=("lock",))


class BoxTable(AloneTable):
    """A simulated instrument.

    Args:
        feeds: a parameter of the plant that follows its output.
    """

    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"use": SIMULATED}
    feeds: FeedTable | None = None


class BenchTable(Section):
    """The simulated side of a bench: which boxes, which node, how they are served.

    Args:
        seed: of noise and drift.
        transport: how the instruments are served.
        node: the twin between the instruments.
        linger_s: how long it outlives its trainer, s.
        log_path: a file that gets a line when an output goes on or off.
        faults: see docs/reference/virtual_bench.md.
        port_mapper: `hil serve` adds a VXI-11 port mapper to each instrument, for clients that cannot name a port. Port 111 is
            root's.
        announce: `hil serve` tells other programs of this computer by mDNS what it serves.
        timing: "typical": each instrument is as slow as the real one; or times and rates of all of them, as
            { arm = "10 ms", trigger = "10 ms", up = "10 MB/s", down = "5 MB/s" }; left out: all answer at once.
    """

    seed: Annotated[int, Field(strict=True)] = 0
    transport: Literal["hislip", "socket", "vxi11", "serial"] = "hislip"
    linger_s: Annotated[float, Field(ge=0, strict=True)] = 0.0
    log_path: str | None = None
    faults: list[dict[str, Any]] = Field(default_factory=list)
    port_mapper: Annotated[bool, Field(strict=True)] = False
    announce: Annotated[bool, Field(strict=True)] = False
    timing: Annotated[Literal["typical"] | dict[str, Any] | None, Holds(Timing)] = None
    node: TwinTable
    boxes: Annotated[dict[str, BoxTable], Holds(spread=True)] = Field(default_factory=dict)
    _timing: Mapping[str, float] | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _named_boxes(cls, table: Any) -> Any:
        """[virtual.NAME] is the simulated instrument of that name."""
        if not isinstance(table, Mapping) or "boxes" in table:
            return table
        boxes = {name: part for name, part in table.items() if name not in cls.model_fields and isinstance(part, Mapping)}
        return {**{name: part for name, part in table.items() if name not in boxes}, "boxes": boxes}

    def settle(self, place: str) -> None:
        """Find the classes of the boxes, and check the timing."""
        super().settle(place)
        if isinstance(self.timing, dict):
            found = choice("timing", self.timing, f"{place[:-1]}.timing]", made=Timing)
            found.build()
            self._timing = found.settings

    @property
    def described(self) -> tuple[VirtualBox, ...]:
        """The boxes."""
        return tuple(VirtualBox(name, box.use, box.choice.settings) for name, box in self.boxes.items())

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """Return the outputs that feed the plant."""
        told = {name: box.feeds for name, box in self.boxes.items() if box.feeds is not None}
        return tuple(Feed(name, **one.model_dump(exclude_none=True)) for name, one in told.items())

    def bench(
        self, *, wires: tuple[VirtualWire, ...] = (), grids: tuple[VirtualGrid, ...] = (), scenes: tuple[VirtualScene, ...] = ()
    ) -> VirtualBench:  # fmt: skip
        """Describe the whole bench: the boxes of these tables, and the plant between them, of one kind."""
        return VirtualBench(
            self.described, wires, self.transport, self.seed, linger_s=self.linger_s, log_path=self.log_path,
            faults=self.faults, grids=grids, feeds=self.feeds, scenes=scenes, timing=self._timing or self.timing,
        )  # fmt: skip


class Plant(Device, Recoverable, Attentive, Protocol):
    """The device of a bench whose instruments are looked after."""


class OnPlant(Wrapper, OnServed):
    """The device of a virtual bench: driven over the wire like a real one, its plant's state saved over the control port."""

    _inner: Plant

    def __init__(self, inner: Plant, served: ServedBench) -> None:
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


def check_simulated(bench: BenchFile, virtual: BenchTable | None, names: Sequence[str]) -> None:
    """Raises: ConfigError: an instrument that the virtual bench does not have."""
    for name in names if virtual is not None else ():
        if virtual is not None and name not in virtual.boxes:
            raise not_simulated(bench, name)


def no_virtual(bench: BenchFile) -> ConfigError:
    """The error for a bench file that describes a real bench only."""
    return ConfigError(
        "this bench is real", where=bench.place, got="no [virtual] tables", outputs=UNTOUCHED,
        todo=f"a virtual bench has {', '.join(f'[virtual.{name}]' for name in bench.instruments)} and [virtual.node]",
    )  # fmt: skip


def not_simulated(bench: BenchFile, name: str) -> ConfigError:
    """The error for an instrument that the virtual side of `bench` does not have."""
    return ConfigError(
        "this instrument is not simulated", where=f"{bench.place}: [virtual]", got=f"no [virtual.{name}]",
        allowed=f"[virtual.{name}], of the same name", outputs=UNTOUCHED, todo=f"add [virtual.{name}]",
    )  # fmt: skip


def serve_all(described: VirtualBench, table: BenchTable | None, out: Console) -> None:
    """Serve a virtual bench over every transport until Ctrl-C, and say where its instruments are."""
    described = replace(described, transport="all")
    if table is not None:
        described = replace(described, port_mapper=table.port_mapper, announce=table.announce)
    with build(described) as running:
        for name, resource in running.resources.items():
            more = [kind[name] for kind in (running.vxi11, running.sockets) if name in kind]
            out.print("      ".join([f"{name:<8} {resource}", *more]), soft_wrap=True)
        told = "newline-separated JSON; see docs/reference/virtual_bench.md"
        out.print("{:<8} {}:{}      {}".format("control", *running.control.address, told), soft_wrap=True)
        out.print("open them with any VISA client; Ctrl-C ends the bench")
        until_interrupted(out)
