"""A bench file becomes an opened Device: real instruments at their addresses, or a virtual bench served for the occasion.

Both go through the same drivers and the same wire; real or virtual is only which addresses are opened. A virtual bench runs in
a process of its own, so the trainer talks to it as to boxes on a table, and its plant can be saved and restored for a resume.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from torch import Tensor

from calibration.certificate import Instrument
from drivers.frame_session import FrameLink, FrameSession
from drivers.link import Link
from drivers.read_back import Care
from drivers.safe import SafeState, Switchable, board, in_order
from drivers.scpi import Expect, Scpi
from drivers.serial_link import SerialLink
from drivers.spiking import SpikingBoard
from drivers.transcript import Transcribed, TranscribedFrames, WireLog
from drivers.visa_link import VisaLink
from drivers.waveform import Waveform, WaveformSettings
from hil.config import Bench, BenchFile, DirectBench, InstrumentTable, PanelTable, SpikingBench, Using, VirtualTable
from hil.device import ArraySpec, Chip, Device, Provenance, Recoverable
from hil.direct_bench import NODE, Unguarded, direct_node
from hil.errors import ConfigError, Ended
from hil.guardian.guard import Guard, guarded
from hil.naming import UNTOUCHED, arguments, blaming, construct, resolve
from hil.run.recovery import Patience
from hil.units import quantity
from hil.wrappers import Wrapper
from sim_devices.bench import ServedBench, build, spawn
from sim_devices.control import ControlClient
from sim_devices.fabrication import CABLE, node_specimen, specimen
from sim_devices.lif_array import Neuron
from sim_devices.own_process import Served
from sim_devices.spiking_bench import ServedBoard, VirtualBoard, spawn_board
from sim_devices.virtual_bench import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.wiring import Cable

AWG, SCOPE, BOARD = "awg", "scope", "board"
SIMULATED = "SIM-"  # how serial numbers of simulated instruments begin
LINGER_S = 5.0  # a virtual bench outlives a trainer that was killed, so that there is something to be made safe
VIRTUAL_PATIENCE_S = 3.0  # a process that does not answer for so long is gone
LINK_S = 5.0  # what a link may wait by itself, unless the file says otherwise


@dataclass(frozen=True)
class Opened:
    """device or chip: ready to drive. facts: of the node. resources: instrument -> who answered. twin: the belief.

    provenance: by the bench file and by who answered. instruments: the same who answered, as values.
    guard: who makes its outputs safe if this program cannot; `guard.beat` for long work without the device.
    patience: of recovery. beware: what people must be told of the instruments.
    """

    device: Device | None
    chip: Chip | None
    facts: dict[str, Any]
    resources: dict[str, str]
    guard: Guard | Unguarded
    twin: Using | None = None
    patience: Patience = field(default_factory=Patience)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    provenance: Provenance = "unknown"
    beware: tuple[str, ...] = ()


class _OnServed:
    """The rungs of what a process of its own serves: what ended with its process does not come back."""

    def __init__(self, inner: Recoverable, served: Served, what: str) -> None:
        self._rungs, self._served, self._what = inner, served, what

    def clear(self) -> None:
        self._rungs.clear()

    def reopen(self) -> None:
        if not self._served.running:
            raise ended(self._what, self._served.complaints())
        self._rungs.reopen()

    def identify(self) -> str:
        return self._rungs.identify()

    def reinstate(self) -> None:
        self._rungs.reinstate()

    def verify(self) -> str:
        return self._rungs.verify()


class OnPlant(Wrapper, _OnServed):
    """The device of a virtual bench: driven over the wire like a real one, its plant's state saved over the control port."""

    _inner: Waveform

    def __init__(self, inner: Waveform, served: ServedBench) -> None:
        Wrapper.__init__(self, inner)
        _OnServed.__init__(self, inner, served, "virtual bench")

    @property
    def control(self) -> ControlClient:
        """Of the plant: what is true of it, for those who judge what was measured."""
        return self._served.control

    def submit(self, x: Tensor) -> Future[Tensor]:
        return self._inner.submit(x)

    def edge(self, shift_s: float = 0.0) -> tuple[Tensor, Tensor]:
        return self._inner.edge(shift_s)

    def follow(self, offset: float, period: float | None = None) -> None:
        self._inner.follow(offset, period)

    def attend(self) -> None:
        self._inner.attend()

    def snapshot(self) -> Mapping[str, object]:
        """Of the plant only: what the instruments hold is set up again by their drivers.

        Raises:
            LinkError: the bench is gone, and its plant's state with it.
        """
        return self.control.snapshot(boxes=False)

    def restore(self, state: Mapping[str, object]) -> None:
        self.control.restore(state)


class OnBoard(_OnServed):
    """The chip of a virtual board."""

    def __init__(self, inner: SpikingBoard, served: ServedBoard) -> None:
        super().__init__(inner, served, "virtual board")
        self._inner = inner

    def array(self, spec: ArraySpec) -> Device:
        return self._inner.array(spec)

    @property
    def retransmitted(self) -> int:
        return self._inner.retransmitted

    def close(self) -> None:
        self._inner.close()


def provenance_of(bench: Bench, met: Mapping[str, Instrument] | None = None) -> Provenance:
    """Who answers on `bench`, as far as it is known.

    Args:
        met: the instruments that answered; None or empty: none yet, and a file alone does not make a bench real.
    """
    if isinstance(bench, DirectBench) or bench.virtual is not None:
        return "twin"
    simulated = any(who.serial.startswith(SIMULATED) for who in (met or {}).values())  # of a virtual bench served elsewhere
    return "twin" if simulated else "real" if met else "unknown"


def ended(what: str, words: str) -> Ended:
    return Ended(
        f"the process of the {what} is over", where=what, got=f"its last words:\n{words}" if words else "",
        outputs="off with it", todo="see why it ended, then hil resume: that starts a new one",
    )  # fmt: skip


@contextmanager
def open_bench(bench: Bench, where: str, run: Path | None = None, wire: bool = False) -> Iterator[Opened]:
    """Open the instruments of `bench`; a [virtual] bench is started first and stopped last. Leaving closes the device.

    Args:
        run: the run folder, for what the guardian and a virtual bench write. wire: keep transcripts of what is said to every
            instrument there, in wire/.

    Raises:
        ConfigError: before anything is opened, but for settings that only the driver can judge. OutOfRange, OpenFailed,
        WrongInstrument, CommandRefused, MeasurementError. RunError: another program owns an instrument. GuardianLost.
        UnsafeOutputs: also on leaving.
    """
    if isinstance(bench, DirectBench):
        yield _direct(bench, where, wire)
        return
    log = run / "wire" if run and wire else None
    opened = _open_board(bench, where, run, log) if isinstance(bench, SpikingBench) else _open_waveform(bench, where, run, log)
    with opened as found:
        yield found


def _direct(bench: DirectBench, where: str, wire: bool) -> Opened:
    if wire:
        raise ConfigError(
            "this bench has no wire to keep a transcript of", where=where, got="wire = true", outputs=UNTOUCHED,
            todo="remove wire from [train]",
        )  # fmt: skip
    node = direct_node(bench, where)
    who = {NODE: node.who}
    return Opened(node.device, None, node.facts, {}, Unguarded(), bench.twin, instruments=who, provenance="twin")


@contextmanager
def _open_board(bench: SpikingBench, where: str, run: Path | None, log: Path | None) -> Iterator[Opened]:
    patience = _patience(bench.recovery, where)
    care = _care(bench.panel, where)
    driver, settings = _driver(bench.board, f"{where}: [board]", ("link", "expect", "provenance", "care"))
    virtual = None if bench.virtual is None else _virtual_board(bench.virtual, f"{where}: [virtual]")
    _check_address(bench.board, virtual is not None, f"{where}: [board]", "/dev/ttyACM0")
    _check_silence(bench, 2 * (bench.board.timeout_s or LINK_S), where)
    with ExitStack() as stack:
        with blaming(f"{where}: [virtual]"):
            served = stack.enter_context(spawn_board(_lingering(virtual, run))) if virtual else None
        port = served.port if served else str(bench.board.resource)
        expect = Expect(bench.board.maker or "", bench.board.model or "", bench.board.serial or "")
        guard = _guarded(bench, [port], run, stack)
        line = SerialLink(port, beat=guard.beat)
        stack.callback(line.close)  # the driver closes it too; this is for what happens before there is a driver
        line.timeout_s = bench.board.timeout_s or line.timeout_s
        link: FrameLink = line
        if log is not None:
            link = TranscribedFrames(line, stack.enter_context(WireLog(log / f"{BOARD}.jsonl", port)))
        answering = FrameSession(link, expect=expect).welcome.identity  # arms nothing: until here there is nothing to make safe
        guard.watch([board(BOARD, port, Expect(answering.maker, answering.model, answering.serial))])  # the driver arms
        watched = {"care": care} if "care" in inspect.signature(driver).parameters else {}
        with blaming(f"{where}: [board]"):
            opened = driver(link, **settings, expect=expect, provenance="twin" if served else "real", **watched)
        stack.push(guard.leaving(opened.close))
        guard.watch([_safe_state(opened, f"{where}: [board]")])
        who = opened.identity
        answered = f"{who.maker} {who.model}   {port}   SN {who.serial}   fw {who.firmware}"
        chip: Chip = OnBoard(opened, served) if served else opened
        facts = {"bench": bench.name, **(bench.virtual or {})}
        found = {BOARD: Instrument(who.maker, who.model, who.serial, who.firmware)}
        origin = provenance_of(bench, found)
        yield Opened(None, chip, facts, {BOARD: answered}, guard, patience=patience, instruments=found, provenance=origin)


def _guarded(bench: BenchFile | SpikingBench, resources: Sequence[str], run: Path | None, stack: ExitStack) -> Guard:
    table, virtual = bench.guardian, bench.virtual is not None
    patience_s = min(table.patience_s, VIRTUAL_PATIENCE_S) if virtual else table.patience_s
    opened = guarded(resources, silence_s=table.silence_s, patience_s=patience_s, run=run, virtual=virtual)
    return stack.enter_context(opened)


def _safe_state(driver: object, where: str) -> SafeState:
    if isinstance(driver, Switchable):
        return driver.safe_state()
    raise ConfigError(
        "this driver does not say what safe means", where=where, got=type(driver).__name__,
        allowed="a driver with safe_state()", outputs="as the driver left them when it opened",
        todo="give it safe_state(); see docs/safe_state.md",
    )  # fmt: skip


def _virtual_board(table: Mapping[str, Any], where: str) -> VirtualBoard:
    """[virtual]: settings of the board, and of its neurons in [virtual.neuron]."""
    settings = dict(table)
    settings["faults"] = tuple(settings.get("faults", ()))
    place = f"{where[:-1]}.neuron]"
    neuron = construct(Neuron, arguments(Neuron, settings.pop("neuron", {}), place), place)
    found: VirtualBoard = construct(
        VirtualBoard, {"neuron": neuron, **arguments(VirtualBoard, settings, where, skip=("neuron",))}, where
    )
    return found


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
def _open_waveform(bench: BenchFile, where: str, run: Path | None, log: Path | None) -> Iterator[Opened]:
    patience, care = _patience(bench.recovery, where), _care(bench.panel, where)
    place = f"{where}: [waveform]"
    settings: WaveformSettings = construct(WaveformSettings, arguments(WaveformSettings, bench.waveform, place), place)
    slew = {} if bench.safe.awg.slew_v_per_s is None else {"slew_v_per_s": bench.safe.awg.slew_v_per_s}
    awg = InstrumentTable.model_validate({**bench.awg.model_dump(), **slew})
    waits_s = [t.timeout_s or LINK_S for t in (awg, bench.scope)]
    _check_silence(bench, settings.trigger_timeout_s + settings.longest_delay_s + 2 * max(waits_s), where)
    for name, table in ((AWG, awg), (SCOPE, bench.scope)):
        _driver(table, f"{where}: [{name}]")
        _check_address(table, bench.virtual is not None, f"{where}: [{name}]", "TCPIP::…")
    with ExitStack() as stack:
        with blaming(f"{where}: [virtual]"):
            served = stack.enter_context(spawn(_lingering(description(bench, where), run))) if bench.virtual else None
        addresses = served.resources if served else {AWG: str(awg.resource), SCOPE: str(bench.scope.resource)}
        guard = _guarded(bench, [addresses[AWG], addresses[SCOPE]], run, stack)
        if served is not None:  # a bench that does not answer must not be waited for until the guardian takes that for a hang
            served.control.timeout_s = min(served.control.timeout_s, bench.guardian.silence_s / 2)
        generator, awg_line, awg_who = _instrument(awg, addresses[AWG], f"{where}: [awg]", guard, stack, log)
        stack.push(guard.leaving(generator.close))
        guard.watch(in_order([_safe_state(generator, f"{where}: [awg]")], bench.safe.order))
        digitizer, scope_line, scope_who = _instrument(bench.scope, addresses[SCOPE], f"{where}: [scope]", guard, stack, log)
        found = {AWG: awg_who, SCOPE: scope_who}
        origin = provenance_of(bench, found)
        with blaming(place):
            waveform = Waveform(generator, digitizer, settings, origin, care=care)
        stack.push(guard.leaving(waveform.close))
        device: Device = OnPlant(waveform, served) if served else waveform
        facts = {
            "bench": bench.name,
            **({"use": bench.virtual.node.use, **bench.virtual.node.settings()} if bench.virtual else {}),
        }
        lines = {AWG: awg_line, SCOPE: scope_line}
        yield Opened(device, None, facts, lines, guard, bench.twin, patience, found, origin, waveform.notes)


V = TypeVar("V", VirtualBench, VirtualBoard)


def _lingering(described: V, run: Path | None) -> V:
    """It outlives a trainer that was killed, and writes to the run what its outputs did."""
    log = None if run is None else str(run.resolve() / "bench.log")
    return replace(described, linger_s=max(LINGER_S, described.linger_s), log_path=described.log_path or log)


def _check_silence(bench: BenchFile | SpikingBench, least: float, where: str) -> None:
    if bench.guardian.silence_s < least:
        raise ConfigError(
            "the guardian would take a legal wait for a hang", where=f"{where}: [guardian] silence_s",
            got=f"{bench.guardian.silence_s:g} s", allowed=f"at least {least:g} s, for what [waveform] and timeout_s allow",
            outputs=UNTOUCHED, todo="raise silence_s, or lower the timeouts",
        )  # fmt: skip


def _patience(table: Mapping[str, Any], where: str) -> Patience:
    place = f"{where}: [recovery]"
    found: Patience = construct(Patience, arguments(Patience, table, place), place)
    return found


def _care(table: PanelTable, where: str) -> Care:
    place = f"{where}: [panel]"
    try:
        return Care(quantity(table.every, "second", f"{place} every"), table.policy, table.lock)
    except ConfigError as error:
        raise ConfigError(error.what, where=place, got=error.got, allowed=error.allowed, outputs=UNTOUCHED) from error


def _driver(table: InstrumentTable, where: str, given: Sequence[str] = ("scpi",)) -> tuple[Any, dict[str, Any]]:
    driver = resolve(table.use, where)
    return driver, arguments(driver, table.settings(), where, skip=given)


def _instrument(
    table: InstrumentTable, address: str, where: str, guard: Guard, stack: ExitStack, log: Path | None
) -> tuple[Any, str, Instrument]:
    """An opened, identified driver, a line that says who answered, and who."""
    driver, settings = _driver(table, where)
    with blaming(where):
        line = VisaLink(address, beat=guard.beat)
    open_to_all = table.resource is not None and not line.locked
    link: Link = line
    link.timeout_s = table.timeout_s or link.timeout_s
    if log is not None:
        name = where.rsplit("[", 1)[1].rstrip("]")
        link = Transcribed(link, stack.enter_context(WireLog(log / f"{name}.jsonl", address)))
    stack.callback(link.close)  # the driver closes it too; this is for what happens before there is a driver
    scpi = Scpi(link, expect=Expect(table.maker or "", table.model or "", table.serial or ""))
    who = scpi.identify()
    answered = f"{who.maker} {who.model}   {address}   SN {who.serial}   fw {who.firmware}"
    answered += "   other computers are not kept out" if open_to_all else ""
    with blaming(where):
        opened = driver(scpi, **settings)
    return opened, answered, Instrument(who.maker, who.model, who.serial, who.firmware)


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
    settings, cable = arguments(node, table.node.settings(), f"{where}: [virtual.node]"), _cable(table, where)
    if table.specimen is not None:
        settings = node_specimen(construct(node, settings, f"{where}: [virtual.node]"), table.specimen, f"{where}: [virtual]")
        cable = {**cable, **specimen({"delay_s": cable.get("delay_s", 0.0)}, CABLE, table.specimen)}
    wire = VirtualWire(AWG, SCOPE, Part(table.node.use, settings), **cable)
    return VirtualBench(
        boxes, (wire,), table.transport, table.seed, linger_s=table.linger_s, log_path=table.log_path, faults=table.faults
    )


def _box(name: str, table: Any, where: str) -> VirtualBox:
    made = resolve(table.use, where)
    return VirtualBox(name, table.use, arguments(made, table.settings(), where, skip=("lock",)))


def _cable(table: VirtualTable, where: str) -> dict[str, Any]:
    return arguments(Cable, table.cable, f"{where}: [virtual.cable]")


def serve_bench(bench: Bench, where: str, out: Console) -> None:
    """Serve the virtual side of `bench` from this process until Ctrl-C.

    Raises:
        ConfigError: it has none, or none that has a wire.
    """
    if isinstance(bench, DirectBench):
        raise ConfigError(
            "there is nothing to serve", where=where, got=f'shape = "{bench.shape}", called directly', outputs=UNTOUCHED,
            allowed='shape = "waveform" or "spiking"', todo="train on it, or calibrate it, as it is",
        )  # fmt: skip
    if isinstance(bench, SpikingBench):
        with spawn_board(_virtual_board(bench.virtual or {}, f"{where}: [virtual]")) as board:
            out.print(f"board    {board.port}      a serial line; Ctrl-C ends the bench", soft_wrap=True)
            out.print("control  {}:{}      newline-separated JSON; see docs/virtual_bench.md".format(*board.control.address))
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
