"""A bench file becomes an opened Device: real instruments at their addresses, or a virtual bench served for the occasion.

Both go through the same drivers and the same wire; real or virtual is only which addresses are opened. A virtual bench runs in
a process of its own, so the trainer talks to it as to boxes on a table, and its plant can be saved and restored for a resume.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from drivers.frame_session import FrameLink
from drivers.link import Link
from drivers.scpi import Expect, Scpi
from drivers.serial_link import SerialLink
from drivers.transcript import Transcribed, TranscribedFrames, WireLog
from drivers.visa_link import VisaLink
from drivers.waveform import Waveform, WaveformSettings
from hil.config import UNTOUCHED, BenchFile, InstrumentTable, SpikingBench, Using, VirtualTable, arguments, resolve
from hil.device import Chip, Device, Spec
from hil.errors import ConfigError
from sim_devices.bench import ServedBench, build, spawn
from sim_devices.lif_array import Neuron
from sim_devices.spiking_bench import VirtualBoard, spawn_board
from sim_devices.virtual_bench import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.wiring import Cable

AWG, SCOPE = "awg", "scope"


@dataclass(frozen=True)
class Opened:
    """device or chip: ready to drive. facts: of the node. resources: instrument -> who answered. twin: the belief."""

    device: Device | None
    chip: Chip | None
    facts: dict[str, Any]
    resources: dict[str, str]
    twin: Using | None = None


class OnPlant:
    """The device of a virtual bench: driven over the wire like a real one, its plant's state saved over the control port."""

    def __init__(self, inner: Waveform, bench: ServedBench) -> None:
        self._inner, self._bench = inner, bench

    @property
    def spec(self) -> Spec:
        return self._inner.spec

    def program(self, params: Tensor) -> None:
        self._inner.program(params)

    def reset(self) -> None:
        self._inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        return self._inner.forward(x)

    def submit(self, x: Tensor) -> Future[Tensor]:
        return self._inner.submit(x)

    def close(self) -> None:
        self._inner.close()

    def snapshot(self) -> Mapping[str, object]:
        """Of the plant only: what the instruments hold is set up again by their drivers.

        Raises:
            LinkError: the bench is gone, and its plant's state with it.
        """
        return self._bench.control.snapshot(boxes=False)

    def restore(self, state: Mapping[str, object]) -> None:
        self._bench.control.restore(state)


@contextmanager
def open_bench(bench: BenchFile | SpikingBench, where: str, wire: Path | None = None) -> Iterator[Opened]:
    """Open the instruments of `bench`; a [virtual] bench is started first and stopped last. Leaving closes the device.

    Args:
        wire: a folder for transcripts of what is said to every instrument, or None.
    Raises:
        ConfigError: before anything is opened, but for settings that only the driver can judge. OutOfRange, OpenFailed,
        WrongInstrument, CommandRefused, MeasurementError. UnsafeOutputs: also on leaving.
    """
    opened = _open_board(bench, where, wire) if isinstance(bench, SpikingBench) else _open_waveform(bench, where, wire)
    with opened as found:
        yield found


@contextmanager
def _open_board(bench: SpikingBench, where: str, wire: Path | None) -> Iterator[Opened]:
    driver, settings = _driver(bench.board, f"{where}: [board]", ("link", "expect", "provenance"))
    virtual = None if bench.virtual is None else _virtual_board(bench.virtual, f"{where}: [virtual]")
    _check_address(bench.board, virtual is not None, f"{where}: [board]", "/dev/ttyACM0")
    with ExitStack() as stack:
        served = stack.enter_context(spawn_board(virtual)) if virtual else None
        port = served.port if served else str(bench.board.resource)
        expect = Expect(bench.board.maker or "", bench.board.model or "", bench.board.serial or "")
        link: FrameLink = SerialLink(port)
        if wire is not None:
            link = TranscribedFrames(link, stack.enter_context(WireLog(wire / "board.jsonl", port)))
        board = driver(link, **settings, expect=expect, provenance="twin" if served else "real")
        stack.callback(board.close)
        who = board.identity
        line = f"{who.maker} {who.model}   {port}   SN {who.serial}   fw {who.firmware}"
        yield Opened(None, board, {"bench": bench.name, **(bench.virtual or {})}, {"board": line})


def _virtual_board(table: Mapping[str, Any], where: str) -> VirtualBoard:
    """[virtual]: settings of the board, and of its neurons in [virtual.neuron]."""
    settings = dict(table)
    neuron = Neuron(**arguments(Neuron, settings.pop("neuron", {}), f"{where[:-1]}.neuron]"))
    return VirtualBoard(neuron, **arguments(VirtualBoard, settings, where, skip=("neuron",)))


def _check_address(table: InstrumentTable, virtual: bool, where: str, example: str) -> None:
    """A real box has an address, a virtual one has none: with both, nobody could tell which of them is meant."""
    if virtual and table.resource is not None:
        raise ConfigError(
            "both a real and a virtual instrument", where=where, got=f'resource = "{table.resource}", and [virtual] tables',
            allowed="one of them", outputs=UNTOUCHED, todo="remove [virtual] to drive the real one, else the resource",
        )  # fmt: skip
    if not virtual and table.resource is None:
        raise ConfigError(
            "no address", where=where, got="no resource, and no [virtual] tables in the file", outputs=UNTOUCHED,
            todo=f'add resource = "{example}"; see hil list resources',
        )  # fmt: skip


@contextmanager
def _open_waveform(bench: BenchFile, where: str, wire: Path | None) -> Iterator[Opened]:
    settings = WaveformSettings(**arguments(WaveformSettings, bench.waveform, f"{where}: [waveform]"))
    for name, table in ((AWG, bench.awg), (SCOPE, bench.scope)):
        _driver(table, f"{where}: [{name}]")
        _check_address(table, bench.virtual is not None, f"{where}: [{name}]", "TCPIP::…")
    with ExitStack() as stack:
        served = stack.enter_context(spawn(description(bench, where))) if bench.virtual else None
        addresses = served.resources if served else {AWG: str(bench.awg.resource), SCOPE: str(bench.scope.resource)}
        generator, awg_line = _instrument(bench.awg, addresses[AWG], f"{where}: [awg]", stack, wire and wire / "awg.jsonl")
        digitizer, scope_line = _instrument(
            bench.scope, addresses[SCOPE], f"{where}: [scope]", stack, wire and wire / "scope.jsonl"
        )
        waveform = Waveform(generator, digitizer, settings, "twin" if served else "real")
        stack.callback(waveform.close)
        device: Device = OnPlant(waveform, served) if served else waveform
        facts = {
            "bench": bench.name,
            **({"use": bench.virtual.node.use, **bench.virtual.node.settings()} if bench.virtual else {}),
        }
        yield Opened(device, None, facts, {AWG: awg_line, SCOPE: scope_line}, bench.twin)


def _driver(table: InstrumentTable, where: str, given: Sequence[str] = ("scpi",)) -> tuple[Any, dict[str, Any]]:
    driver = resolve(table.use, where)
    return driver, arguments(driver, table.settings(), where, skip=given)


def _instrument(
    table: InstrumentTable, address: str, where: str, stack: ExitStack, wire: Path | None = None
) -> tuple[Any, str]:
    """An opened, identified driver, and a line that says who answered."""
    driver, settings = _driver(table, where)
    link: Link = VisaLink(address)
    if wire is not None:
        link = Transcribed(link, stack.enter_context(WireLog(wire, address)))
    stack.callback(link.close)  # the driver closes it too; this is for what happens before there is a driver
    scpi = Scpi(link, expect=Expect(table.maker or "", table.model or "", table.serial or ""))
    who = scpi.identify()
    return driver(scpi, **settings), f"{who.maker} {who.model}   {address}   SN {who.serial}   fw {who.firmware}"


def description(bench: BenchFile, where: str) -> VirtualBench:
    """The simulated side of `bench`.

    Raises:
        ConfigError: the file has none, or its settings are wrong.
    """
    table = bench.virtual
    if table is None:
        raise ConfigError(
            "this bench is real", where=where, got="no [virtual] tables", outputs="untouched; nothing was opened",
            todo="a virtual bench has [virtual.awg], [virtual.scope] and [virtual.node]",
        )  # fmt: skip
    boxes = tuple(_box(name, use, f"{where}: [virtual.{name}]") for name, use in ((AWG, table.awg), (SCOPE, table.scope)))
    node = resolve(table.node.use, f"{where}: [virtual.node]")
    part = Part(table.node.use, arguments(node, table.node.settings(), f"{where}: [virtual.node]"))
    wire = VirtualWire(AWG, SCOPE, part, **_cable(table, where))
    return VirtualBench(boxes, (wire,), table.transport, table.seed)


def _box(name: str, table: Any, where: str) -> VirtualBox:
    made = resolve(table.use, where)
    return VirtualBox(name, table.use, arguments(made, table.settings(), where, skip=("lock",)))


def _cable(table: VirtualTable, where: str) -> dict[str, Any]:
    return arguments(Cable, table.cable, f"{where}: [virtual.cable]")


def serve_bench(bench: BenchFile | SpikingBench, where: str, out: Console) -> None:
    """Serve the virtual side of `bench` from this process until Ctrl-C."""
    if isinstance(bench, SpikingBench):
        with spawn_board(_virtual_board(bench.virtual or {}, f"{where}: [virtual]")) as board:
            out.print(f"board    {board.port}      a serial line; Ctrl-C ends the bench", soft_wrap=True)
            _until_interrupted(out)
        return
    with build(replace(description(bench, where), transport="both")) as running:
        host, port = running.control.address
        for name, resource in running.resources.items():
            out.print(f"{name:<8} {resource}      {running.sockets[name]}", soft_wrap=True)
        out.print(f"{'control':<8} {host}:{port}      newline-separated JSON; see docs/virtual_bench.md", soft_wrap=True)
        out.print("open them with any VISA client; Ctrl-C ends the bench")
        _until_interrupted(out)


def _until_interrupted(out: Console) -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        out.print("bench ended; its outputs are off with it")
