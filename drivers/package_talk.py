"""The conversation that makes an instrument of a package safe: the package's driver, opened anew.

    command     output_enabled=false;power=0.5      parameter=JSON, each set in order         "": nothing
    question    output_enabled;power                -> false;0.5
                output_enabled==true                -> 1 or 0                                 "": 1

`SafeState.how` is a line of JSON: {"of": "module:Class", and what that takes}. The package's own calls say nothing of how long
they may take, so they run on a thread of their own: who waits longer than a deadline for one of them goes on without it.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from drivers.packages import Holding, PyMeasurePackage, QCoDeSPackage
from drivers.safe import SafeState, Talk
from hil.errors import ConfigError, HilError, InstrumentError, LinkError, LinkTimeout, WrongInstrument
from hil.files import loads
from hil.foreign import foreign

OPEN_S, CALL_S = 10.0, 5.0  # longest for the opening of a driver, and for any other call
WIRES = ("pyvisa", "serial", "usb", "socket")  # packages whose exceptions are about the wire
SAME = 1e-6  # of a value


@contextmanager
def of_package(where: str) -> Iterator[None]:
    """Map what a package raises: LinkError if it is about the wire, InstrumentError if not."""
    try:
        with foreign(where, InstrumentError, "as they were", "see what its package says of this exception"):
            yield
    except InstrumentError as error:
        cause = error.__cause__
        wire = isinstance(cause, OSError | EOFError) or type(cause).__module__.partition(".")[0] in WIRES
        if cause is None or not wire:
            raise
        raise LinkError(error.what, where=where, got=error.got, outputs="not known", todo="look at power and cable") from cause


class PackageTalk:
    """Commands and questions about the parameters of one instrument."""

    def __init__(self, package: Holding, instrument: Any, name: str) -> None:
        self._package, self._instrument, self._name = package, instrument, name

    def do(self, command: str, question: str) -> str:
        """Set what `command` says, then answer `question`. Raises: InstrumentError, LinkError, ConfigError."""
        for one in command.split(";") if command else ():
            parameter, _, value = one.partition("=")
            with of_package(f"{self._name} {parameter}"):
                self._package.put(self._instrument, parameter, loads(value, self._name, ConfigError))
        return ";".join(self._answered(one) for one in question.split(";"))

    def _answered(self, question: str) -> str:
        parameter, compared, value = question.partition("==")
        if not parameter:
            return "1"
        with of_package(f"{self._name} {parameter}"):
            found = plain_value(self._package.get(self._instrument, parameter))
        if compared:
            return str(int(same(found, loads(value, self._name, ConfigError))))
        return found if isinstance(found, str) else json.dumps(found)


def plain_value(found: Any) -> float | bool | str:
    """Convert an answer of a package to a value of Python's own; anything else to text."""
    found = found.item() if hasattr(found, "item") else found  # of numpy
    return found if isinstance(found, bool | str) else float(found) if isinstance(found, int | float) else str(found)


def same(a: object, b: object, near: float = 0.0) -> bool:
    """True if both are the same text in any case, or numbers that differ by `near` or a rounding at most; true is 1."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= max(near, SAME * max(abs(a), abs(b)))
    return str(a).strip().upper() == str(b).strip().upper()


def answers(value: float | bool | str) -> tuple[str, ...]:
    """Return every form in which a package may give back `value`."""
    words = (("0", "false", "off"), ("1", "true", "on"))
    return words[value] if isinstance(value, bool) else (value if isinstance(value, str) else f"{value:.9g}",)


def put(parameter: str, value: float | bool | str) -> str:
    """The command that sets a parameter."""
    return f"{parameter}={json.dumps(value)}"


@contextmanager
def anew(package: Holding, state: SafeState) -> Iterator[Talk]:
    """Open the driver of `state` once more, and see that the expected instrument answers.

    Raises:
        LinkError, InstrumentError: nobody answers. WrongInstrument: another one does.
    """
    table = described(state)
    work = _Calls(state.name)
    with of_package(state.name):
        instrument, _ = work.done(lambda: package.begin(f"{state.name}_made_safe", table), OPEN_S)
    try:
        with of_package(state.name):
            who = work.done(lambda: package.who(instrument), CALL_S)
        if not state.expect.admits(who):
            raise WrongInstrument(
                "another instrument answers", where=f"{state.name} at {state.resource}", got=str(who),
                allowed=str(state.expect), outputs=state.outputs, todo="switch the expected one off by hand",
            )  # fmt: skip
        yield _OnThread(PackageTalk(package, instrument, state.name), work)
    finally:
        with suppress(HilError):  # what was read back is known all the same
            work.done(lambda: package.release(instrument), CALL_S)
        work.end()


def described(state: SafeState) -> dict[str, Any]:
    """The table that opens the driver. Raises: ConfigError: there is none."""
    table = loads(state.how, state.name, ConfigError)
    if isinstance(table, dict):
        return table
    raise ConfigError(
        "the safe state does not say how its driver is opened", where=state.name, got=state.how[:80] or "nothing",
        allowed='{"of": "module:Class", …}', outputs=state.outputs, todo="switch it off by hand",
    )  # fmt: skip


class _Calls:
    """A thread that makes one call after another: some libraries want all of them from the one that opened them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._wanted: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"{name} made safe", daemon=True).start()

    def _run(self) -> None:
        while (call := self._wanted.get()) is not None:
            call()

    def done(self, call: Callable[[], Any], within_s: float) -> Any:
        """Return what `call` returns. Raises: LinkTimeout, and what it raises."""
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answer.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - raised by who asked
                answer.put((None, error))

        self._wanted.put(run)
        try:
            found, error = answer.get(timeout=within_s)
        except queue.Empty:
            raise LinkTimeout(
                "the driver of its package does not return", where=self._name, got=f"no answer in {within_s:g} s",
                outputs="not known", todo="look at power and cable",
            ) from None  # fmt: skip
        if error is not None:
            raise error
        return found

    def end(self) -> None:
        """Let the thread end after the calls that it has."""
        self._wanted.put(None)


class _OnThread:
    """A conversation whose exchanges have a deadline."""

    def __init__(self, talk: Talk, work: _Calls) -> None:
        self._talk, self._work = talk, work

    def do(self, command: str, question: str) -> str:
        """See Talk. Raises: LinkTimeout, and what it raises."""
        answer: str = self._work.done(lambda: self._talk.do(command, question), CALL_S)
        return answer


@contextmanager
def pymeasure(state: SafeState) -> Iterator[Talk]:
    """Open a driver of PyMeasure; see `anew`."""
    with anew(PyMeasurePackage(), state) as talk:
        yield talk


@contextmanager
def qcodes(state: SafeState) -> Iterator[Talk]:
    """Open a driver of QCoDeS; see `anew`."""
    with anew(QCoDeSPackage(), state) as talk:
        yield talk
