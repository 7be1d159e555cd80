"""The spiking shape: a board of neurons on a serial line. drivers/spiking/device.py makes a Chip of it: an array a layer.

[instruments.board]  use = "drivers.spiking.device:SpikingBoard", leak, v_th, …      resource = "/dev/ttyACM0"
[node]               board = "board"            name of the instrument
[virtual]            the simulated board, instead of a port: seed, serial, largest, neurons, baud, faults, linger_s, log_path
[virtual.neuron]     design and spread of its neurons
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

from pydantic import PrivateAttr
from rich.console import Console

from drivers.links.serial_link import SerialLink
from drivers.links.transcript import TranscribedFrames
from drivers.scpi import Expect
from drivers.spiking.device import SpikingBoard
from drivers.spiking.session import FrameLink, FrameSession, LineTraffic
from drivers.spiking.talk import board as board_state
from hil.build.bench import (
    LINK_S,
    OnServed,
    Opened,
    Opening,
    answered,
    check_address,
    check_roles,
    expected,
    instrument,
    lingering,
    provenance_of,
    role,
    until_interrupted,
)
from hil.config.bench import BenchFile
from hil.config.read import Holds, Section
from hil.config.resolve import UNTOUCHED, blaming, choice
from hil.device import ArraySpec, Chip, Device
from hil.errors import ConfigError
from sim_devices.bench.board import ServedBoard, VirtualBoard, spawn_board
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

    def settle(self, place: str) -> None:
        """Check the tables and roles, and find driver and virtual board.

        Raises:
            ConfigError: a role that names no instrument, or a class or setting that makes no sense.
        """
        super().settle(place)
        role(self, self.node.board, "board")
        check_roles(self, (self.node.board,))
        if self.virtual is not None:
            settings = {**self.virtual, "faults": tuple(self.virtual.get("faults", ()))}
            neuron = choice("neuron", settings.pop("neuron", {}), f"{place}: [virtual.neuron]", made=Neuron).build()
            made = choice("board", settings, f"{place}: [virtual]", made=VirtualBoard, skip=("neuron",))
            self._described = made.build(neuron=neuron)

    @property
    def described(self) -> VirtualBoard | None:
        """The simulated board."""
        return self._described


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
        table = bench.instruments[name]
        check_address(table, bench.virtual is not None, "/dev/ttyACM0")
        opening.check_silence(2 * (table.timeout_s or LINK_S), "the board")
        described = bench.described
        with blaming(f"{bench.place}: [virtual]"):
            served = None if described is None else opening.stack.enter_context(spawn_board(lingering(described, opening.run)))
        port = str(table.resource) if served is None else served.port
        guard = opening.guarded([port])
        with opening.named(name):
            line = SerialLink(port, beat=guard.beat)
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
        guard.watch([board_state(name, port, who)])  # now, as the driver arms
        provenance = "real" if served is None else "twin"
        watched = {"care": care} if "care" in inspect.signature(table.choice.made).parameters else {}
        driver = table.choice.build(link=link, expect=expected(table), provenance=provenance, **watched)
        opening.stack.push(guard.leaving(driver.close))
        guard.watch(opening.safe_states({name: driver}))
        chip: Chip = driver if served is None else OnBoard(driver, served)
        facts, lines = {"bench": bench.name, **(bench.virtual or {})}, {name: answered(driver.identity, port)}
        found = {name: instrument(driver.identity)}
        yield Opened(None, chip, facts, lines, guard, bench.twin, patience, found, provenance_of(bench, found))

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
