"""A bench file becomes an opened Device: real instruments at their addresses, or a virtual bench served for the occasion.

Both go through the same drivers and the same wire; real or virtual is only which addresses are opened. A virtual bench runs in
a process of its own, so the trainer talks to it as to boxes on a table, and its plant can be saved and restored for a resume.

What the instruments make together is the bench's Shape, a class of its own: hil/build/shapes/ has ours, and a bench file may
name another, shape = "module:Shape". `Opening` is what a shape opens its instruments with.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from rich.console import Console

from calibration.certificate import Instrument
from drivers.links.link import Link
from drivers.links.opened import opened
from drivers.links.serial_link import SerialLink
from drivers.links.transcript import FULL_BYTES, Transcribed, TranscribedFrames, WireLog
from drivers.links.visa_link import VisaLink
from drivers.read_back import Care
from drivers.safe import SafeState, Switchable, in_order
from drivers.scpi import Expect, Identity, Scpi
from hil.config.bench import BenchFile, InstrumentTable, TwinTable
from hil.config.modules import imported
from hil.config.resolve import UNTOUCHED, blaming, choice
from hil.device import Chip, Device, Provenance, Recoverable
from hil.devices.recovery import Patience
from hil.errors import ConfigError, Ended, OpenFailed, WrongInstrument
from hil.guardian.client import Guard, guarded
from sim_devices.bench.description import VirtualBench
from sim_devices.bench.process import Served

SIMULATED = "SIM-"  # how serial numbers of simulated instruments begin
LINGER_S = 5.0  # a virtual bench outlives a trainer that was killed, so that there is something to be made safe
VIRTUAL_PATIENCE_S = 3.0  # a process that does not answer for so long is gone
LINK_S = 5.0  # what a link may wait by itself, unless the file says otherwise


class Guarding(Protocol):
    """The guard of an opened bench: hil.guardian.client.Guard, or a host, or both make its outputs safe."""

    def beat(self) -> None:
        """Tell that this program makes progress."""

    def rest(self, error: BaseException | None) -> None:
        """Make the outputs safe now, because of an error, or None."""

    @property
    def outputs_after(self) -> str:
        """Say what is known of the outputs once they were made safe, for people."""


class Unguarded:
    """The stand-in for a Guard where no output can stay on."""

    def beat(self) -> None:
        """Do nothing: nobody listens."""

    def rest(self, error: BaseException | None) -> None:
        """Do nothing: no output is on."""

    @property
    def outputs_after(self) -> str:
        """Return "": no output is on."""
        return ""


@dataclass(frozen=True)
class Opened:
    """A bench that is ready to drive.

    Args:
        device, chip: one of them; the other is None.
        facts: of the node, for results.
        resources: instrument -> who answered, a line for people.
        guard: who makes its outputs safe if this program cannot; `guard.beat` for long work without the device.
        twin: the model of the node, from the bench file.
        patience: of recovery.
        instruments: who answered, as values.
        provenance: by the bench file and by who answered.
        beware: what people must be told of the instruments.
    """

    device: Device | None
    chip: Chip | None
    facts: dict[str, Any]
    resources: dict[str, str]
    guard: Guarding
    twin: TwinTable | None = None
    patience: Patience = field(default_factory=Patience)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    provenance: Provenance = "unknown"
    beware: tuple[str, ...] = ()


class Shape(Protocol):
    """The way in which named instruments of a bench become one node. An object of it is made without arguments.

    Args:
        Bench: the tables of its bench files, a subclass of BenchFile.
        calibration: "module:function" of the procedures that `hil calibrate` does, or "" if there are none.
    """

    Bench: ClassVar[type[BenchFile]]
    calibration: ClassVar[str]

    def open(self, bench: Any, opening: Opening) -> AbstractContextManager[Opened]:
        """Open the instruments with `opening`; leaving closes the device, its outputs verified to be safe.

        Raises:
            ConfigError: before anything is opened. LinkError, InstrumentError, MeasurementError: from the instruments.
        """

    def settings(self, bench: Any) -> Mapping[str, Mapping[str, Any]]:
        """The tables besides the instruments' that change what is measured, by name; a calibration holds for these alone."""

    def serve(self, bench: Any, out: Console) -> None:
        """Serve the virtual side until Ctrl-C. Raises: ConfigError: there is none."""


@runtime_checkable
class Conversing(Protocol):
    """A shape whose instruments can hold the fixed conversation of `hil transcript`: they drive or read levels or records."""

    def conversing(self, bench: Any) -> tuple[tuple[str, ...], VirtualBench | None]:
        """Return their names in the bench file, and their simulated side; None if they are real.

        Raises:
            ConfigError: the settings of the simulated side are wrong.
        """


@runtime_checkable
class Paced(Protocol):
    """A shape that plays the samples of a shot one after the other, at a rate that its tables say."""

    def pace(self, bench: Any) -> tuple[float, int]:
        """Return what a sample takes, in s, and how many times each record is read."""


class Opening:
    """Opens instruments for a shape: guarded, transcribed where asked for, closed at the end whatever happens.

    Args:
        bench: its file.
        run: the run folder, for what the guardian and a virtual bench write, or None.
        wire: keep transcripts of what is said to every instrument there.
        stack: closes what is opened.
        full_bytes: longer messages are kept in transcripts as length and checksum.
    """

    def __init__(self, bench: BenchFile, run: Path | None, wire: bool, stack: ExitStack, full_bytes: int = FULL_BYTES) -> None:
        self.bench, self.run, self.stack, self._full_bytes = bench, run, stack, full_bytes
        self._wire = run / "wire" if run is not None and wire else None
        self._logs = stack.enter_context(ExitStack())  # closed last: drivers close their wires, and that is said too
        self.transcribed = wire

    @property
    def patience(self) -> Patience:
        """Settings of recovery. Raises: ConfigError: [recovery] makes no sense."""
        found: Patience = choice("Patience", self.bench.recovery, f"{self.bench.place}: [recovery]", made=Patience).build()
        return found

    @property
    def care(self) -> Care:
        """Settings of the read-back. Raises: ConfigError: [panel] makes no sense."""
        table = self.bench.panel
        with blaming(table.place):
            return Care(table.quantity("every", "second"), table.policy, table.lock)

    def guarded(self, resources: Sequence[str]) -> Guard:
        """Own `resources`, and start who makes them safe when this program cannot.

        Raises: RunError, GuardianLost, UnsafeOutputs: as `hil.guardian.client.guarded`.
        """
        table, virtual = self.bench.guardian, self.bench.simulated
        patience_s = min(table.patience_s, VIRTUAL_PATIENCE_S) if virtual else table.patience_s
        opened = guarded(resources, silence_s=table.silence_s, patience_s=patience_s, run=self.run, virtual=virtual)
        return self.stack.enter_context(opened)

    def scpi(self, name: str, address: str, guard: Guard) -> tuple[Any, Identity, str]:
        """The driver of an instrument that speaks SCPI, who answered, and a line about it for people.

        Args:
            name: of the instrument in the bench file.
            address: its VISA resource.
            guard: hears of every use of its wire.

        Raises:
            LinkError, InstrumentError: from the instrument.
        """
        table = self.bench.instruments[name]
        baud = table.baud or getattr(table.choice.made, "baud", None)
        speaks = getattr(table.choice.made, "speaks", Scpi)
        with blaming(table.place), self.named(name):
            line = opened(address, beat=guard.beat, baud=baud, terminator=speaks.terminator)
        link: Link = line
        link.timeout_s = table.timeout_s or link.timeout_s
        log = self.wire_log(name, address)
        if log is not None:
            link = Transcribed(link, log)
        try:
            scpi = speaks(link, expect=expected(table))
            with self.named(name):
                who = scpi.identify()
            driver = table.choice.build(scpi=scpi)
        except BaseException:
            link.close()  # from now on the driver does
            raise
        told = answered(who, address)
        if table.resource is not None and isinstance(line, VisaLink) and not line.locked:
            told += "   other computers are not kept out"
        return driver, who, told

    def package(self, name: str, address: str, guard: Guard) -> tuple[Any, Identity, str]:
        """Open a driver that opens its wire by itself (drivers/adapter.py); else as `scpi`.

        Raises:
            ConfigError: settings that it makes no use of. LinkError, InstrumentError: from the instrument.
        """
        table = self.bench.instruments[name]
        if table.timeout_s is not None:
            raise ConfigError(
                "the package of this driver decides how long it waits", where=f"{table.place} timeout_s",
                got=f"{table.timeout_s:g} s", outputs=UNTOUCHED, todo="remove it; its class may take one in options",
            )  # fmt: skip
        with suppress(ImportError):  # a driver of the user's is found beside the file; what is not is told by who needs it
            imported(str(table.choice.settings.get("driver", "")).partition(":")[0].partition(".")[0] or "hil", table.place)
        more: dict[str, Any] = {}
        silent = self.transcribed
        if silent and "link" in inspect.signature(table.choice.made).parameters:  # a board of frames, not a package
            more["session"], silent = time.time_ns() & 0xFFFFFFFF, False
            log = self.wire_log(name, address, session=more["session"])
            assert log is not None  # transcripts are asked for
            more["link"] = TranscribedFrames(SerialLink(address, baud=table.choice.made.baud, beat=guard.beat), log)
        driver = table.choice.build(address=address, called=name, expect=expected(table), beat=guard.beat, **more)
        who = driver.identity
        if driver.simulated:
            who = replace(who, serial=f"{SIMULATED}{who.serial}")
        told = answered(who, address) + ("   no transcript: its package keeps the wire" if silent else "")
        return driver, who, told

    def instrument(self, name: str, address: str, guard: Guard) -> tuple[Any, Identity, str]:
        """`package` for a driver that takes an address, `scpi` for one that takes a conversation."""
        opens = "address" in inspect.signature(self.bench.instruments[name].choice.made).parameters
        return (self.package if opens else self.scpi)(name, address, guard)

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Say of a fault at the address of an instrument which one that is, and in which file."""
        table = self.bench.instruments[name]
        try:
            yield
        except (OpenFailed, WrongInstrument) as error:
            error.where = f"{table.place} resource: {error.where}" if table.resource is not None else error.where
            meant = [other for other, its in self.bench.instruments.items() if other != name and _is(error.got, its)]
            if isinstance(error, WrongInstrument) and len(meant) == 1:
                error.todo = f"exchange the two addresses: this is the instrument that [instruments.{meant[0]}] expects"
            raise

    def wire_log(self, name: str, address: str, **besides: object) -> WireLog | None:
        """Open the transcript of an instrument's wire, if transcripts were asked for. besides: settings that no file has."""
        if self._wire is None:
            return None
        choice = self.bench.instruments[name].choice
        facts = {"driver": f"{choice.made.__module__}:{choice.made.__qualname__}", "settings": {**choice.settings, **besides}}
        return self._logs.enter_context(
            WireLog(self._wire / f"{name}.jsonl", address, full_bytes=self._full_bytes, facts=facts)
        )

    def safe_states(self, drivers: Mapping[str, object]) -> tuple[SafeState, ...]:
        """Return the safe state of each driver that can drive something, in the order of [safe].

        Raises:
            ConfigError: a driver does not say.
        """
        states = [replace(_safe_state(driver, self.bench.instruments[name]), name=name) for name, driver in drivers.items()]
        return in_order(states, self.bench.safe.order)

    def check_silence(self, least_s: float, what: str) -> None:
        """Raises: ConfigError: the guardian would take a legal wait of `least_s`, for `what`, for a hang."""
        table = self.bench.guardian
        if table.silence_s < least_s:
            raise ConfigError(
                "the guardian would take a legal wait for a hang", where=f"{table.place} silence_s",
                got=f"{table.silence_s:g} s", allowed=f"at least {least_s:g} s, for what {what} and timeout_s allow",
                outputs=UNTOUCHED, todo="raise silence_s, or lower the timeouts",
            )  # fmt: skip


class OnServed:
    """The rungs of the ladder for what a process of its own serves: what ended with its process does not come back.

    Args:
        inner: the driver.
        served: its process.
        what: how messages call it.
    """

    def __init__(self, inner: Recoverable, served: Served, what: str) -> None:
        self._rungs, self._served, self._what = inner, served, what

    def clear(self) -> None:
        """Empty the wires: what was in flight is thrown away."""
        self._rungs.clear()

    def reopen(self) -> None:
        """Close the wires and open them again.

        Raises:
            Ended: the process that serves the instruments is over.
        """
        if not self._served.running:
            raise ended(self._what, self._served.complaints())
        self._rungs.reopen()

    def identify(self) -> str:
        """Verify that the same instruments answer."""
        return self._rungs.identify()

    def reinstate(self) -> None:
        """Switch outputs off and reset; then send the settings again, in safe order."""
        self._rungs.reinstate()

    def verify(self) -> str:
        """Verify that a known drive gives its known answer."""
        return self._rungs.verify()


def provenance_of(bench: BenchFile, met: Mapping[str, Instrument] | None = None) -> Provenance:
    """Say who answers on `bench`, as far as it is known.

    Args:
        bench: its file, read.
        met: the instruments that answered; None or empty: none yet, and a file alone does not make a bench real.
    """
    if bench.simulated:
        return "twin"
    simulated = any(who.serial.startswith(SIMULATED) for who in (met or {}).values())  # of a virtual bench served elsewhere
    return "twin" if simulated else "real" if met else "unknown"


def _is(identity: str, table: InstrumentTable) -> bool:
    """True if an instrument that calls itself so is one that a table asks for by its model or serial number."""
    asked = [part for part in (table.maker, table.model, table.serial) if part]
    return bool(table.model or table.serial) and all(part.casefold() in identity.casefold() for part in asked)


def expected(table: InstrumentTable) -> Expect:
    """Return who must answer."""
    return Expect(table.maker or "", table.model or "", table.serial or "")


def answered(who: Identity, address: str) -> str:
    """Say who answered, for people."""
    return f"{who.maker} {who.model}   {address}   SN {who.serial}   fw {who.firmware}"


def instrument(who: Identity) -> Instrument:
    """Say who answered, for a certificate."""
    return Instrument(who.maker, who.model, who.serial, who.firmware)


def _safe_state(driver: object, table: InstrumentTable) -> SafeState:
    """Return the safe state of `driver`. Raises: ConfigError: it does not say."""
    if isinstance(driver, Switchable):
        return driver.safe_state()
    raise ConfigError(
        "this driver does not say what safe means", where=table.place, got=type(driver).__name__,
        allowed="a driver with safe_state()", outputs="as the driver left them when it opened",
        todo="give it safe_state(); see docs/how-to/add_a_driver.md",
    )  # fmt: skip


def ended(what: str, words: str) -> Ended:
    """The process of a virtual bench is over."""
    return Ended(
        f"the process of the {what} is over", where=what, got=f"its last words:\n{words}" if words else "",
        outputs="off with it", todo="see why it ended, then hil resume: that starts a new one",
    )  # fmt: skip


@contextmanager
def open_bench(bench: BenchFile, run: Path | None = None, wire: bool = False) -> Iterator[Opened]:
    """Open the instruments of `bench`; a [virtual] bench is started first and stopped last. Leaving closes the device.

    Args:
        bench: its file, read.
        run: the run folder, for what the guardian and a virtual bench write.
        wire: keep transcripts of what is said to every instrument there, in wire/.

    Raises:
        ConfigError: before anything is opened, but for settings that only the driver can judge. OutOfRange, OpenFailed,
        WrongInstrument, CommandRefused, MeasurementError. RunError: another program owns an instrument. GuardianLost.
        UnsafeOutputs: also on leaving.
    """
    with ExitStack() as stack, bench.how.open(bench, Opening(bench, run, wire, stack)) as opened:
        yield opened


def serve_bench(bench: BenchFile, out: Console) -> None:
    """Serve the virtual side of `bench` from this process until Ctrl-C.

    Raises:
        ConfigError: it has none, or none that has a wire.
    """
    bench.how.serve(bench, out)


def until_interrupted(out: Console) -> None:
    """Wait for Ctrl-C."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        out.print("bench ended; its outputs are off with it")


class Lingering(Protocol):
    """The description of a virtual bench."""

    linger_s: float
    log_path: str | None


V = TypeVar("V", bound=Any)


def lingering(described: V, run: Path | None) -> V:
    """Let a virtual bench outlive a trainer that was killed, and write to the run what its outputs did."""
    log = None if run is None else str(run.resolve() / "bench.log")
    return replace(described, linger_s=max(LINGER_S, described.linger_s), log_path=described.log_path or log)


def check_address(table: InstrumentTable, virtual: bool, example: str) -> None:
    """A real box has an address, a virtual one has none: with both, nobody could tell which of them is meant.

    Raises: ConfigError.
    """
    if virtual and table.resource is not None:
        raise ConfigError(
            "both a real and a virtual instrument", where=table.place,
            got=f'resource = "{table.resource}", and [virtual] tables', allowed="one of them", outputs=UNTOUCHED,
            todo="remove [virtual] to drive the real one, else the resource",
        )  # fmt: skip
    if not virtual and table.resource is None:
        raise ConfigError(
            "no address", where=table.place, got="no resource, and no [virtual] tables in the file", outputs=UNTOUCHED,
            todo=f'add resource = "{example}"; see hil list resources',
        )  # fmt: skip


def role(bench: BenchFile, name: str, key: str) -> InstrumentTable:
    """The instrument that plays the role `key` of [node]. Raises: ConfigError: there is none of that name."""
    found = bench.instruments.get(name)
    if found is None:
        raise ConfigError(
            "no such instrument", where=f"{bench.place}: [node] {key}", got=f'"{name}"',
            allowed=", ".join(bench.instruments) or "none is there", outputs=UNTOUCHED,
            todo=f"add [instruments.{name}], or name one that is there",
        )  # fmt: skip
    return found


def check_roles(bench: BenchFile, named: Sequence[str]) -> None:
    """Raises: ConfigError: an instrument without a role."""
    idle = [name for name in bench.instruments if name not in named]
    if idle:
        raise ConfigError(
            "instruments without a role", where=f"{bench.place}: [node]", got=", ".join(idle), allowed=", ".join(named),
            outputs=UNTOUCHED, todo="name them in [node], or remove them",
        )  # fmt: skip
