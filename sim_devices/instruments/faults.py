"""Faults of a virtual bench as data: which, where, when, how often.

    of the exchanges that match, number k = 0, 1, ... is struck if      k >= after,  strikes begun < times,  u(k) < rate
    and so are the `lasts - 1` after it.  u(k), and whatever else a strike draws, comes from the key (seed, k, "fault <id>")

The same seed and the same exchanges therefore give the same faults, whoever asks and however long it takes. What an exchange is
depends on the kind (its moment): a message to a box or a frame to a board, only those with a reply where the reply is damaged;
a record of a scope; an edge that would have triggered it; a shot through a node.

A target without faults costs one look at `on_wire` an exchange and at `on_physics` a record.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from enum import Enum
from typing import Literal, Protocol

from hil.errors import ConfigError, nearest

LOG_LENGTH = 10_000
MATCH_REACH = 256  # bytes of a message in which `match` is looked for: its commands, not the megabytes of its block
SLICE_S = 0.02  # a wait looks so often whether it is still wanted

Place = Literal["box", "scope", "board", "node"]
WIRE: tuple[Place, ...] = ("box", "scope", "board")
NETWORK: tuple[Place, ...] = ("box", "scope")


class Moment(Enum):
    """A point of an exchange at which a fault may strike."""

    COMMAND = "a command arrived and was not executed yet"
    EXCHANGE = "a command was executed"
    REPLY = "a reply is about to be sent"
    RECORD = "a scope has converted a record"
    EDGE = "an edge would trigger a scope"
    SHOT = "a node is driven"


PHYSICS = (Moment.RECORD, Moment.EDGE, Moment.SHOT)


@dataclass(frozen=True, slots=True)
class Sort:
    """The common properties of a kind of fault: when and where it strikes, which settings of a Fault it uses."""

    moment: Moment
    places: tuple[Place, ...]
    takes: tuple[str, ...] = ()


KINDS: Mapping[str, Sort] = {
    "mangle": Sort(Moment.COMMAND, WIRE, ("match", "bits")),
    "reboot": Sort(Moment.COMMAND, WIRE, ("match", "seconds", "quiet")),
    "flood": Sort(Moment.COMMAND, NETWORK, ("match",)),
    "hand": Sort(Moment.COMMAND, NETWORK, ("match", "command")),
    "delay": Sort(Moment.EXCHANGE, WIRE, ("match", "seconds")),
    "stall": Sort(Moment.EXCHANGE, WIRE, ("match", "seconds")),
    "reset": Sort(Moment.EXCHANGE, NETWORK, ("match",)),
    "refuse": Sort(Moment.EXCHANGE, NETWORK, ("match", "seconds")),
    "unplug": Sort(Moment.EXCHANGE, ("board",), ("match", "seconds")),
    "drop": Sort(Moment.REPLY, WIRE, ("match",)),
    "truncate": Sort(Moment.REPLY, WIRE, ("match", "bytes")),
    "pad": Sort(Moment.REPLY, WIRE, ("match", "bytes")),
    "flip": Sort(Moment.REPLY, WIRE, ("match", "bits", "position")),
    "swap": Sort(Moment.REPLY, NETWORK, ("match",)),
    "garbage": Sort(Moment.REPLY, WIRE, ("match", "bytes")),
    "duplicate": Sort(Moment.REPLY, WIRE, ("match",)),
    "stale": Sort(Moment.REPLY, WIRE, ("match", "seconds")),
    "half_close": Sort(Moment.REPLY, NETWORK, ("match", "bytes")),
    "throttle": Sort(Moment.REPLY, WIRE, ("match", "bytes_per_s")),
    "serial": Sort(Moment.REPLY, NETWORK, ("match", "serial")),
    "stuck": Sort(Moment.RECORD, ("scope",), ("channel", "volts")),
    "saturation": Sort(Moment.RECORD, ("scope",), ("channel", "volts")),
    "holes": Sort(Moment.RECORD, ("scope",), ("channel", "points")),
    "behind": Sort(Moment.RECORD, ("scope",), ("channel",)),
    "sentinel": Sort(Moment.RECORD, ("scope",), ("channel",)),
    "missed_trigger": Sort(Moment.EDGE, ("scope",)),
    "mode_hop": Sort(Moment.SHOT, ("node",), ("phase_rad", "power", "noise")),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a box. A kind refuses the settings that it does not use; see KINDS.

    Args:
        match: part of the command, any case; of a board the name of a frame, "STEP".
        after: matching exchanges that are left alone first.
        times: how often, 0 for ever; left out: once, but for ever if `rate` is below 1, and for "serial".
        rate: probability.
        lasts: exchanges in a row that a strike takes, 0 for all until healed.
        seconds: how long.
        bytes: of the reply that are still sent (truncate, half_close; left out: half), or that are sent besides (pad,
            garbage; 4).
        bits: how many are flipped.
        position: where.
        bytes_per_s: throttle.
        serial: the other serial number.
        command: what another hand sets just before, as another session does: a lock of the front panel does not keep it
            out.
        quiet: the reboot is not seen on the wire, only in the status and in what was lost.
        channel: of the scope.
        volts: that a stuck channel reads, or that are added (saturation; left out: the range of it).
        points: holes in a record.
        phase_rad, power, noise: step of the node's phase, factors on its laser and its noise.
    """

    kind: str
    match: str = ""
    after: int = 0
    times: int | None = None
    rate: float = 1.0
    lasts: int = 1
    seconds: float = 1.0
    bytes: int | None = None
    bits: int = 1
    position: str = "payload"
    bytes_per_s: float = 10e3
    serial: str = "SOMEONE-ELSE"
    command: str = ""
    quiet: bool = False
    channel: int = 1
    volts: float | None = None
    points: int = 1
    phase_rad: float = 0.0
    power: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            hint = nearest(self.kind, KINDS)
            raise ConfigError(
                "no such kind of fault", where="fault", got=f'"{self.kind}"', allowed=", ".join(KINDS),
                todo=f'did you mean "{hint}"?' if hint else "choose one of these",
            )  # fmt: skip
        takes = (*COMMON, *KINDS[self.kind].takes)
        for field in fields(self):
            value = getattr(self, field.name)
            _checked(self.kind, field.name, value)
            if field.default is not MISSING and value != field.default and field.name not in takes:
                raise ConfigError(
                    f"{self.kind} has no use for {field.name}", where="fault", got=f"{field.name} = {value!r}",
                    allowed=", ".join(takes), todo="leave it out",
                )  # fmt: skip

    @property
    def strikes(self) -> int:
        """Number of times that it strikes; 0 for ever."""
        if self.times is not None:
            return self.times
        return 0 if self.rate < 1 or self.kind == "serial" else 1


COMMON = ("kind", "after", "times", "rate", "lasts")
LEAST = {"bits": 1, "points": 1, "channel": 1}  # of whole numbers; 0 for the others
WHOLE = ("after", "times", "lasts", "bytes", "bits", "channel", "points")
NUMBERS = ("rate", "seconds", "bytes_per_s", "volts", "phase_rad", "power", "noise")
SIGNED = ("volts", "phase_rad")
LONGEST, WHOLE_MOST, CHANNELS = 1e9, 1 << 31, 4


def _checked(kind: str, name: str, value: object) -> None:
    """Raises: ConfigError: of the wrong kind, or outside of what makes sense; NaN is."""
    if value is None and name in ("times", "bytes", "volts"):
        return
    if name in WHOLE:
        least, most = LEAST.get(name, 0), CHANNELS if name == "channel" else WHOLE_MOST
        fits, allowed = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most, f"{least} to {most}"
    elif name in NUMBERS:
        low, high = -LONGEST if name in SIGNED else 0.0, 1.0 if name == "rate" else LONGEST
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        fits, allowed = fits and not (name == "bytes_per_s" and value == 0), f"{low:g} to {high:g}"
    elif name == "quiet":
        fits, allowed = isinstance(value, bool), "true or false"
    elif name == "position":
        fits, allowed = value in ("payload", "header"), "payload or header"
    else:
        fits, allowed = isinstance(value, str) and "\n" not in value and value.isascii(), "ASCII text"
    if not fits:
        raise ConfigError(f"{name} makes no sense", where=f"fault {kind}", got=f"{value!r}", allowed=allowed)


def read_fault(table: Mapping[str, object]) -> tuple[str, Fault]:
    """``{"box": "scope", "kind": "truncate", "rate": 0.001}`` -> its box, the fault.

    Raises:
        ConfigError: a key is missing, unknown, or of the wrong kind.
    """
    known = ["box", *(field.name for field in fields(Fault))]
    for name in table:
        if name not in known:
            hint = nearest(name, known)
            raise ConfigError(
                "a fault has no such setting", where="fault", got=name, allowed=", ".join(known),
                todo=f'did you mean "{hint}"?' if hint else "leave it out",
            )  # fmt: skip
    box, settings = table.get("box"), {name: value for name, value in table.items() if name != "box"}
    if not isinstance(box, str) or not isinstance(settings.get("kind"), str):
        raise ConfigError("a fault needs a box and a kind", where="fault", got=str(dict(table))[:200], allowed="text for both")
    make: Callable[..., Fault] = Fault
    return box, make(**settings)


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that strikes now.

    Args:
        rng: for what it draws.
        healed: set when the fault is taken back.
    """

    fault: Fault
    rng: random.Random
    healed: threading.Event

    def wait(self, seconds: float, unwanted: Callable[[], bool] = lambda: False) -> None:
        """Wait until the time is over, the fault is healed, or nobody wants to wait any more."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not unwanted() and not self.healed.wait(min(left, SLICE_S)):
            pass


@dataclass(frozen=True, slots=True)
class Injection:
    """A strike, for the log.

    Args:
        exchange: number k of those that matched the fault.
        time_s: of the bench's clock.
    """

    time_s: float
    box: str
    kind: str
    id: str
    exchange: int


class Door(Protocol):
    """The place where clients of a box come in."""

    def refuse(self, seconds: float, healed: threading.Event, reset: bool = False) -> None:
        """Drop every client and take no new one for so long.

        Args:
            seconds: how long.
            healed: ends it at once when it is set.
            reset: with RST, not FIN.
        """


@dataclass(slots=True)
class _Scheduled:
    fault: Fault
    id: str
    healed: threading.Event
    seen: int = 0
    begun: int = 0
    injected: int = 0
    more: int = 0  # exchanges that the last strike still takes; below 0 for all


class Faults:
    """The faults of one target: a box, a board or a node.

    Args:
        target: its name on the bench.
        place: what it is.
        seed: see `hil.seeding.key`.
        log: of all targets. doors: filled by the servers of a box. check: refuses a fault of this target with ConfigError,
            besides what KINDS refuses.
    """

    def __init__(
        self,
        target: str = "",
        place: Place = "box",
        seed: int = 0,
        log: deque[Injection] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.target, self.place = target, place
        self.on_wire = self.on_physics = False
        self.doors: list[Door] = []
        self.check: Callable[[Fault], None] = lambda fault: None
        self._seed, self._clock = seed, clock
        self._log: deque[Injection] = deque(maxlen=LOG_LENGTH) if log is None else log
        self._lock = threading.Lock()
        self._scheduled: dict[str, _Scheduled] = {}
        self._last = 0

    def add(self, fault: Fault) -> str:
        """Schedule a fault; return its id.

        Raises:
            ConfigError: the kind does not apply here.
        """
        if self.place not in KINDS[fault.kind].places:
            fitting = [kind for kind, sort in KINDS.items() if self.place in sort.places]
            raise ConfigError(
                f"{fault.kind} does not apply to a {self.place}", where=f"fault of {self.target}", got=fault.kind,
                allowed=", ".join(fitting), todo="choose another kind, or another target",
            )  # fmt: skip
        self.check(fault)
        with self._lock:
            self._last += 1
            scheduled = _Scheduled(fault, f"{self.target}.{self._last}", threading.Event())
            self._scheduled[scheduled.id] = scheduled
            self._look()
            return scheduled.id

    def heal(self, id: str | None = None) -> int:
        """Take back one fault, or all of them; how many."""
        with self._lock:
            gone = [self._scheduled.pop(name) for name in list(self._scheduled) if id is None or name == id]
            for scheduled in gone:
                scheduled.healed.set()
            self._look()
            return len(gone)

    def strikes(self, moment: Moment, text: str | bytes | bytearray | memoryview = "") -> list[Strike]:
        """Count this exchange, and say which faults strike it.

        Args:
            moment: of the exchange.
            text: the command, or the name of the frame.
        """
        found: list[Strike] = []
        with self._lock:
            due = [s for s in self._scheduled.values() if KINDS[s.fault.kind].moment is moment]
            name = _start(text) if any(s.fault.match or s.fault.kind == "serial" for s in due) else ""
            for scheduled in due:
                wanted = scheduled.fault.match or ("*IDN" if scheduled.fault.kind == "serial" else "")
                if wanted.upper() in name:
                    rng = self._struck(scheduled)
                    if rng is not None:
                        found.append(Strike(scheduled.fault, rng, scheduled.healed))
        return found

    def listing(self) -> list[dict[str, object]]:
        """List the faults, each with its id, how many exchanges matched it, and how often it was injected."""
        with self._lock:
            return [
                {"id": s.id, "box": self.target, **_given(s.fault), "matched": s.seen, "injected": s.injected}
                for s in self._scheduled.values()
            ]

    def _look(self) -> None:
        moments = {KINDS[s.fault.kind].moment for s in self._scheduled.values()}
        self.on_physics = any(moment in PHYSICS for moment in moments)
        self.on_wire = any(moment not in PHYSICS for moment in moments)

    def _struck(self, scheduled: _Scheduled) -> random.Random | None:
        """The generator of a strike, or None."""
        from hil.seeding import key  # here, because a bench without wires and faults starts ten times faster without torch

        fault, number = scheduled.fault, scheduled.seen
        scheduled.seen += 1
        rng = random.Random(key(self._seed, number, f"fault {scheduled.id}"))
        drawn = rng.random()
        if scheduled.more:
            scheduled.more -= 1
        elif number >= fault.after and (not fault.strikes or scheduled.begun < fault.strikes) and drawn < fault.rate:
            scheduled.begun += 1
            scheduled.more = fault.lasts - 1
        else:
            return None
        scheduled.injected += 1
        self._log.append(Injection(self._clock(), self.target, fault.kind, scheduled.id, number))
        return rng


class FaultSchedule:
    """The faults of all boxes of a bench.

    Args:
        places: target -> what it is.
        seed: of the bench.
    """

    def __init__(self, places: Mapping[str, Place], seed: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._log: deque[Injection] = deque(maxlen=LOG_LENGTH)
        self.of = {target: Faults(target, place, seed, self._log, clock) for target, place in places.items()}

    def add(self, table: Mapping[str, object]) -> str:
        """Schedule ``{"box": ..., "kind": ..., ...}``; return its id.

        Raises:
            ConfigError: no such box, kind or setting, or a kind that does not apply there.
        """
        box, fault = read_fault(table)
        if box not in self.of:
            raise ConfigError("no such box", where="fault", got=f'"{box}"', allowed=", ".join(self.of) or "none")
        return self.of[box].add(fault)

    def add_all(self, tables: Sequence[Mapping[str, object]]) -> None:
        """Add every fault of `tables`; see `add`."""
        for table in tables:
            self.add(table)

    def heal(self, id: str | None = None) -> int:
        """Take back one fault, or all of them; how many.

        Raises:
            ConfigError: there is none of this id.
        """
        healed = sum(faults.heal(id) for faults in self.of.values())
        if id is not None and not healed:
            known = ", ".join(str(entry["id"]) for entry in self.faults())
            raise ConfigError("no such fault", where="fault", got=f'"{id}"', allowed=known or "none is scheduled")
        return healed

    def faults(self) -> list[dict[str, object]]:
        """List what is scheduled, with how often each matched and was injected."""
        return [entry for faults in self.of.values() for entry in faults.listing()]

    def log(self) -> list[dict[str, object]]:
        """Return every injection, oldest first."""
        return [asdict(entry) for entry in list(self._log)]


def _start(text: str | bytes | bytearray | memoryview) -> str:
    start = text[:MATCH_REACH]
    return (start if isinstance(start, str) else bytes(start).decode("latin-1")).upper()


def _given(fault: Fault) -> dict[str, object]:
    """Return the kind of a fault, and the settings that differ from the defaults."""
    return {f.name: value for f in fields(fault) if (value := getattr(fault, f.name)) != f.default}
