"""The spiking shape: a board of neurons on a serial line. drivers/spiking/device.py makes a Chip of it: an array a layer.

[instruments.board]  use = "drivers.spiking.device:SpikingBoard", leak, v_th, …      resource = "/dev/ttyACM0"
[node]               board = "board"            name of the instrument
[virtual]            the simulated board, instead of a port: seed, serial, largest, neurons, baud, faults, linger_s, log_path
[virtual.neuron]     design and spread of its neurons
[virtual.NAME]       a simulated instrument beside it
Other instruments stand beside the board: hil/build/auxiliaries.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import PrivateAttr
from rich.console import Console

from drivers.links.serial_link import SerialLink
from drivers.links.transcript import TranscribedFrames
from drivers.scpi import Expect
from drivers.spiking.device import SpikingBoard
from drivers.spiking.session import FrameLink, FrameSession, LineTraffic
from drivers.spiking.talk import board as board_state
from hil.build.auxiliaries import Table, auxiliary_names
from hil.build.bench import (
    LINK_S,
    OnServed,
    Opened,
    Opening,
    answered,
    check_address,
    expected,
    instrument,
    lingering,
    provenance_of,
    role,
    until_interrupted,
)
from hil.build.virtual import AloneTable, not_simulated
from hil.config.bench import BenchFile
from hil.config.read import Holds, Section, checked
from hil.config.resolve import UNTOUCHED, blaming, choice
from hil.device import ArraySpec, Chip, Device
from hil.errors import ConfigError, UnsafeOutputs
from sim_devices.bench.board import ServedBoard, VirtualBoard, spawn_board
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import spawn
from sim_devices.lif_array import Neuron


class Roles(Section):
    """[node]: which instrument does what.

    Args:
        board: the instrument that holds the neurons.
    """

    board: str


class SpikingBench(BenchFile):
    """A bench file of the spiking shape.

    Args:
        node: what the instrument is for.
        virtual: the simulated board; left out, the bench is real.
    """

    node: Roles
    virtual: Annotated[dict[str, Any] | None, Holds(VirtualBoard)] = None
    _described: VirtualBoard | None = PrivateAttr(default=None)
    _boxes: dict[str, AloneTable] = PrivateAttr(default_factory=dict)

    def settle(self, place: str) -> None:
        """Check the tables and roles, and find driver and virtual board.

        Raises:
            ConfigError: a role that names no instrument, or a class or setting that makes no sense.
        """
        super().settle(place)
        role(self, self.node.board, "board")
        beside = auxiliary_names(self, (self.node.board,))
        if self.virtual is not None:
            settings = {**self.virtual, "faults": tuple(self.virtual.get("faults", ()))}
            for name in beside:
                if name not in settings:
                    raise not_simulated(self, name)
                self._boxes[name] = checked(AloneTable, settings.pop(name), f"{place}: [virtual.{name}]")
            neuron = choice("neuron", settings.pop("neuron", {}), f"{place}: [virtual.neuron]", made=Neuron).build()
            made = choice("board", settings, f"{place}: [virtual]", made=VirtualBoard, skip=("neuron",))
            self._described = made.build(neuron=neuron)

    @property
    def described(self) -> VirtualBoard | None:
        """The simulated board."""
        return self._described

    @property
    def beside(self) -> VirtualBench | None:
        """The simulated instruments beside it; None: there are none."""
        board = self._described
        if board is None or not self._boxes:
            return None
        boxes = tuple(VirtualBox(name, box.use, box.choice.settings) for name, box in self._boxes.items())
        return VirtualBench(boxes, linger_s=board.linger_s, log_path=board.log_path)


class OnBoard(OnServed):
    """The chip of a virtual board."""

    def __init__(self, inner: SpikingBoard, served: ServedBoard) -> None:
        super().__init__(inner, served, "virtual board")
        self._inner = inner

    def array(self, spec: ArraySpec) -> Device:
        """Allocate the next array of neurons on the board."""
        return self._inner.array(spec)

    @property
    def traffic(self) -> LineTraffic:
        """Bytes and faults on the line since it was opened."""
        return self._inner.traffic

    @property
    def retransmitted(self) -> int:
        """Number of frames that were sent again so far."""
        return self._inner.retransmitted

    def close(self) -> None:
        """Leave the board safe, and close its port."""
        self._inner.close()


class SpikingShape:
    """A board of neurons on a serial line."""

    Bench: ClassVar[type[BenchFile]] = SpikingBench
    calibration: ClassVar[str] = ""

    @contextmanager
    def open(self, bench: SpikingBench, opening: Opening) -> Iterator[Opened]:
        """See hil.build.bench.Shape."""
        name, patience, care = bench.node.board, opening.patience, opening.care
        names = (name, *auxiliary_names(bench, (name,)))
        for one in names:
            check_address(bench.instruments[one], bench.virtual is not None, "/dev/ttyACM0" if one == name else "TCPIP::…")
        table = bench.instruments[name]
        taken = inspect.signature(table.choice.made).parameters
        if names[1:] and "auxiliaries" not in taken:
            raise ConfigError(
                "this driver does not start the instruments beside its board again", where=table.place, got=table.use,
                allowed="one that takes auxiliaries, as drivers.spiking.device:SpikingBoard", outputs=UNTOUCHED,
                todo=f"remove {', '.join(names[1:])}, or name another driver",
            )  # fmt: skip
        opening.check_silence(2 * (table.timeout_s or LINK_S), "the board")
        described, boxes = bench.described, bench.beside
        with blaming(f"{bench.place}: [virtual]"):
            served = None if described is None else opening.stack.enter_context(spawn_board(lingering(described, opening.run)))
            around = None if boxes is None else opening.stack.enter_context(spawn(lingering(boxes, opening.run)))
        port = str(table.resource) if served is None else served.port
        every = Table(opening, names, (name,), around, apart={name: port})
        with opening.named(name):
            line = SerialLink(port, beat=every.guard.beat)
        opening.stack.callback(line.close)  # the driver closes it too; this is for what happens before there is a driver
        line.timeout_s = table.timeout_s or line.timeout_s
        link: FrameLink = line
        log = opening.wire_log(name, port)
        if log is not None:
            link = TranscribedFrames(line, log)
        with opening.named(name):
            answering = FrameSession(
                link, expect=expected(table)
            ).welcome.identity  # arms nothing: there is nothing to make safe
        who = Expect(answering.maker, answering.model, answering.serial)
        every.closed_by(partial(_not_closed, name, port), [name])  # until there is a driver, the guard opens a line of its own
        auxiliaries = every.watched((), [board_state(name, port, who)])  # now, as the driver arms
        auxiliaries.start()
        provenance = "real" if served is None else "twin"
        given = {key: value for key, value in {"care": care, "auxiliaries": auxiliaries}.items() if key in taken}
        driver = table.choice.build(link=link, expect=expected(table), provenance=provenance, **given)
        every.closed_by(driver.close, [name])
        every.watch(opening.safe_states({name: driver}))
        chip: Chip = driver if served is None else OnBoard(driver, served)
        facts, lines = {"bench": bench.name, **(bench.virtual or {})}, {name: answered(driver.identity, port), **every.lines}
        found = {name: instrument(driver.identity), **every.found}
        yield Opened(None, chip, facts, lines, every.guard, bench.twin, patience, found, provenance_of(bench, found))

    def settings(self, bench: SpikingBench) -> Mapping[str, Mapping[str, Any]]:
        """Return {}: what is measured depends on the board alone."""
        return {}

    def serve(self, bench: SpikingBench, out: Console) -> None:
        """See hil.build.bench.Shape."""
        if bench.described is None:
            raise ConfigError(
                "this bench is real", where=bench.place, got="no [virtual] table", outputs=UNTOUCHED,
                todo="add [virtual] to serve a simulated board",
            )  # fmt: skip
        with spawn_board(bench.described) as board:
            out.print(f"board    {board.port}      a serial line; Ctrl-C ends the bench", soft_wrap=True)
            out.print(
                "control  {}:{}      newline-separated JSON; see docs/reference/virtual_bench.md".format(*board.control.address)
            )
            until_interrupted(out)


def _not_closed(name: str, port: str) -> NoReturn:
    """Raises: UnsafeOutputs: always; its driver was not opened."""
    raise UnsafeOutputs("the board was not opened, so it was not switched off", where=f"{name} at {port}", outputs="unknown")
