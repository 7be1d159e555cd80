"""The IEEE 488.2 / SCPI core of a simulated instrument: headers to handlers, common commands, status.

    pattern   [SOURce<2>]:VOLTage[:LEVel][:IMMediate][:AMPLitude]
              capitals are the short form, brackets are optional, <2> takes a numeric suffix 1 or 2 (left out: 1), <0> takes 0
    path      after ";" a header goes on where the last one stood, one level up; ":" goes back to the root; common commands
              ("*OPC?") neither use nor change the path

A box holds one of these and gives it its table. Unknown or malformed commands (-1xx) void the rest of their message, refused
ones (-2xx) do not.

Source: IEEE 488.2-1992, chapters 6, 7, 10, 12; SCPI-1999 volume 1, chapters 5 and 6.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sim_devices.instruments.box import Message
from sim_devices.instruments.operations import Cleared, Operations
from sim_devices.instruments.parameters import number, short_form
from sim_devices.instruments.program_message import Block, ScpiError, Token, Unit, units
from sim_devices.instruments.status import OPC, Status

Answer = str | bytes
NODE = re.compile(r"(\[)?:?([A-Za-z_]+)(?:<(\d+)>)?(\])?:?")
KEYWORD = re.compile(r"([A-Z][A-Z_]*?)(\d*)")
ZERO = -1
SUFFIX_DIGITS = 9  # longer ones are out of every range


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a handler: the numeric suffixes in the order of the pattern, and the parameters."""

    suffixes: tuple[int, ...]
    tokens: tuple[Token, ...]

    @property
    def channel(self) -> int:
        """The first suffix."""
        return self.suffixes[0]

    def take(self, least: int, most: int) -> tuple[Token, ...]:
        """The parameters, their number checked."""
        if len(self.tokens) < least:
            raise ScpiError(-109)
        if len(self.tokens) > most:
            raise ScpiError(-108)
        return self.tokens

    def only(self) -> Token:
        """Return the one parameter; ScpiError if there is none, or more."""
        return self.take(1, 1)[0]

    def none(self) -> None:
        """Raise ScpiError if there is any parameter."""
        self.take(0, 0)

    def word(self) -> str:
        """The only parameter, character data, in capitals."""
        token = self.only()
        if not isinstance(token, str):
            raise ScpiError(-104, "a block" if isinstance(token, Block) else token.text[:24])
        return token.upper()


@dataclass(frozen=True, slots=True)
class Command:
    """A line of a box's table. `put` serves ``PATTERN ...``, `get` serves ``PATTERN? ...``; None: there is no such form."""

    pattern: str
    put: Callable[[Call], None] | None = None
    get: Callable[[Call], Answer] | None = None


@dataclass(slots=True)
class Branch:
    """A place in the tree of headers. `limits`: the largest numeric suffix of each keyword, 0 for none, ZERO for 0 alone."""

    below: dict[str, Branch] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    command: Command | None = None
    present: tuple[bool, ...] = ()


class Scpi:
    """The SCPI side of a box: parses messages, executes its table of commands, and keeps status and error queue.

    Args:
        table: the box's own commands.
        identity: the four fields of ``*IDN?``.
        lock: of the bench, held while executing.
        reset: ``*RST``.
        trigger: ``*TRG``, may raise ScpiError -211.
        texts: the maker's error texts.
        plus: error codes are answered with their sign, as +0.
    """

    def __init__(
        self,
        table: Iterable[Command],
        *,
        identity: tuple[str, str, str, str],
        lock: threading.Condition,
        operations: Operations,
        reset: Callable[[], None],
        trigger: Callable[[], None],
        texts: Mapping[int, str] | None = None,
        plus: bool = True,
    ) -> None:
        self.status = Status(texts, plus)
        self._operations, self._lock = operations, lock
        self._opc_due = False
        self._root = Branch()
        for command in itertools.chain(table, self._system()):
            _plant(self._root, command)
        self._common = {c.pattern: c for c in self._mandatory(",".join(identity), reset, trigger)}

    def execute(self, message: Message) -> bytes | None:
        """Run a message; see `Box.execute`."""
        with self._lock:
            answers: list[bytes] = []
            try:
                self._run(units(message), answers)
            except ScpiError as error:
                self.status.report(error)
            except Cleared:
                return None
            return b";".join(answers) if answers else None

    def clear(self) -> None:
        """Clear the device: a pending *OPC and all waits are dropped."""
        with self._lock:
            self._opc_due = False
            self._operations.clear()

    def status_byte(self) -> int:
        """Return the IEEE 488.2 status byte, after a pending *OPC was looked at."""
        with self._lock:
            self._settle()
            return self.status.byte()

    def query_error(self, code: int) -> None:
        """Put a query error, code -410 to -440, into the error queue."""
        with self._lock:
            self.status.report(ScpiError(code))

    def _run(self, message: Iterator[Unit], answers: list[bytes]) -> None:
        path: tuple[str, ...] = ()
        for unit in message:
            try:
                if unit.common:
                    command, call = self._common.get(unit.header.upper()), Call((), unit.tokens)
                else:
                    words = (() if unit.rooted else path) + tuple(unit.header.upper().split(":"))
                    path = words[:-1]
                    command, call = self._found(words, unit.tokens)
                answer = self._answer(command, call, unit, bool(answers))
            except ScpiError as error:
                if -200 < error.code <= -100:
                    raise
                self.status.report(error)
                continue
            if answer is not None:
                answers.append(answer if isinstance(answer, bytes) else answer.encode("ascii", "replace"))

    def _answer(self, command: Command | None, call: Call, unit: Unit, waiting: bool) -> Answer | None:
        if command is not None and unit.query and command.get is not None:
            if unit.header.upper() == "*STB":
                self._settle()
                return f"{self.status.byte(waiting):+d}"
            return command.get(call)
        if command is None or unit.query or command.put is None:
            raise ScpiError(-113, unit.header + "?" * unit.query)
        command.put(call)
        return None

    def _found(self, words: tuple[str, ...], tokens: tuple[Token, ...]) -> tuple[Command | None, Call]:
        """The command of a header, and its call."""
        branch, given = self._root, []
        for word in words:
            parts = KEYWORD.fullmatch(word)
            name, digits = (parts[1], parts[2]) if parts else (word, "")
            below = branch.below.get(name)
            if below is None:
                raise ScpiError(-113, ":".join(words))
            limit = branch.limits[name]
            least, most = (0, 0) if limit == ZERO else (1, max(limit, 1))
            if digits and not least <= int(digits[: SUFFIX_DIGITS + 1]) <= most:
                raise ScpiError(-114, ":".join(words))
            if limit > 0:
                given.append(int(digits or 1))
            branch = below
        each = iter(given)
        return branch.command, Call(tuple(next(each) if there else 1 for there in branch.present), tokens)

    def _settle(self) -> None:
        """Set the bit of ``*OPC`` if it was sent and nothing is pending."""
        if self._opc_due and not self._operations.pending():
            self._opc_due, self.status.event = False, self.status.event | OPC

    def _mandatory(self, identity: str, reset: Callable[[], None], trigger: Callable[[], None]) -> Iterator[Command]:
        status = self.status

        def opc(call: Call) -> None:
            call.none()
            self._opc_due = True
            self._settle()

        def opc_query(call: Call) -> str:
            call.none()
            self._operations.wait()
            return "1"

        def cls(call: Call) -> None:
            call.none()
            status.clear()
            self._opc_due = False

        def rst(call: Call) -> None:
            call.none()
            self._opc_due = False
            self._operations.end_all()
            reset()

        def trg(call: Call) -> None:
            call.none()
            trigger()

        def wai(call: Call) -> None:
            call.none()
            self._operations.wait()

        def esr(call: Call) -> str:
            call.none()
            self._settle()
            return f"{status.read_event():+d}"

        def ese(call: Call) -> None:
            status.event_enable = _byte(call)

        def sre(call: Call) -> None:
            status.request_enable = _byte(call) & ~0x40

        yield Command("*IDN", get=lambda call: identity)
        yield Command("*RST", rst)
        yield Command("*CLS", cls)
        yield Command("*OPC", opc, opc_query)
        yield Command("*WAI", wai)
        yield Command("*TRG", trg)
        yield Command("*TST", get=lambda call: "+0")
        yield Command("*STB", get=lambda call: f"{status.byte():+d}")
        yield Command("*ESR", get=esr)
        yield Command("*ESE", ese, lambda call: f"{status.event_enable:+d}")
        yield Command("*SRE", sre, lambda call: f"{status.request_enable:+d}")

    def _system(self) -> Iterator[Command]:
        yield Command("SYSTem:ERRor[:NEXT]", get=lambda call: self.status.next_error())
        yield Command("SYSTem:ERRor:COUNt", get=lambda call: f"{self.status.errors:+d}")
        yield Command("SYSTem:VERSion", get=lambda call: "1999.0")


def _byte(call: Call) -> int:
    value = round(number(call.only(), ""))
    if not 0 <= value <= 255:
        raise ScpiError(-222, str(value))
    return value


def _plant(root: Branch, command: Command) -> None:
    """Put a pattern into the tree: every choice of its optional nodes, each keyword long and short."""
    nodes = [(m[2], ZERO if m[3] == "0" else int(m[3] or 0), bool(m[1])) for m in NODE.finditer(command.pattern)]
    for choice in itertools.product(*[(True, False) if optional else (True,) for _, _, optional in nodes]):
        branch = root
        if not any(choice):
            continue
        for (name, limit, _), there in zip(nodes, choice, strict=True):
            if there:
                branch = _grown(branch, name, limit)
        assert branch.command is None, f"two commands for {command.pattern}"
        branch.command = command
        branch.present = tuple(there for (_, limit, _), there in zip(nodes, choice, strict=True) if limit > 0)


def _grown(branch: Branch, name: str, limit: int) -> Branch:
    below = branch.below.get(name.upper()) or Branch()
    for word in {name.upper(), short_form(name)}:
        assert branch.limits.get(word, limit) == limit, f"{name}: two largest suffixes"
        assert branch.below.get(word, below) is below, f"{name}: two keywords with this short form"
        branch.below[word], branch.limits[word] = below, limit
    return below


class ScpiBox:
    """A simulated box that speaks SCPI: hands on to its `_scpi` what every such box does; see `Box`."""

    _scpi: Scpi

    def execute(self, message: Message) -> bytes | None:
        """Execute one program message; return the response, or None if it asked nothing."""
        return self._scpi.execute(message)

    def clear(self) -> None:
        """Clear the device: pending queries and waits are dropped, settings and outputs stay."""
        self._scpi.clear()

    def status_byte(self) -> int:
        """Return the IEEE 488.2 status byte, as for a serial poll."""
        return self._scpi.status_byte()

    def trigger(self) -> None:
        """Trigger from the bus, as *TRG does."""
        self._scpi.execute(b"*TRG")

    def query_error(self, code: int) -> None:
        """Report a query error, code -410 to -440, found by the transport."""
        self._scpi.query_error(code)
