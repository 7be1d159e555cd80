"""What somebody asks of a run that another process trains, on the same machine: pause, resume, stop, outputs off.

    ask(folder, "pause")  ->  control.json  ->  Listening, a thread of the trainer that looks 4 times a second  ->  Stopping

    pause     after the step: outputs safe and read back, committed, the bench closed; the process waits
    resume    a paused run opens its bench again and goes on from its checkpoint, as `hil resume` would
    stop      as the first Ctrl-C: after the step, outputs safe, committed
    off       as the second Ctrl-C, at once; a process that does not end within OFF_S is killed, and the guardian or the host
              makes the outputs safe

    {"id", "what", "by", "t", "pid", "since"}     written whole; pid and since are those of run.lock

The trainer obeys a regular file of its own account that nobody else may write to, with a word that it knows, addressed to this
very process. It looks from a thread, so that a step pays nothing for it.
"""

from __future__ import annotations

import getpass
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from hil.errors import HilError, Interrupted, RunError
from hil.files import loads, opened, read_object, there, write_atomic
from hil.hints import quoted
from hil.plain import plain
from hil.run import glance
from hil.run.lock import NAME as LOCK
from hil.run.lock import UNTOUCHED, RunOwner, owner
from hil.run.signals import Stopping
from hil.system import Process, host_name, open_to_others, own, started_s

NAME = "control.json"
What = Literal["pause", "resume", "stop", "off"]
LOOK_S = 0.25
OFF_S = 5.0  # the trainer may take so long to make its outputs safe
GUARD_S = 20.0  # and the guardian, once the trainer is gone
MOST_BYTES = 1 << 12
SLACK_S = 2.0  # run.lock has whole seconds


class Paused(Interrupted):
    """A run is paused: committed, its outputs safe, its bench closed. It never leaves hil/commands/train.py."""


@dataclass(frozen=True)
class Request:
    """What was asked.

    Args:
        what: "pause", "resume", "stop" or "off".
        by: who asked, for people.
        key: no other request has it.
    """

    what: str
    by: str
    key: str


def ask(path: Path, what: What, by: str = "", off_s: float = OFF_S) -> str:
    """Ask the process that trains the run in the folder `path`; return at once, but for "off".

    Args:
        path: of the folder.
        what: see above.
        by: who asks, for the journal; by default this account and process.
        off_s: how long "off" waits before it kills the process.

    Returns:
        what is known of the outputs after "off", as in hil/run/index.py; "" of the others.

    Raises:
        RunError: nobody is at work there, or somebody else's process; or it cannot do that. Nothing was asked.
    """
    why = refusal(path, what)
    if why is not None:
        raise why
    held = owner(path)
    assert held is not None  # or it was refused
    process = Process(held.pid)
    try:
        if not _same(held):
            raise _refused(path, "the process of this run cannot be told from a later one", f"process {held.pid}")
        by = plain(by or f"{getpass.getuser()}, process {os.getpid()}")[:200]
        facts = {
            "id": uuid.uuid4().hex, "what": what, "by": by, "t": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "pid": held.pid, "since": held.since,
        }  # fmt: skip
        write_atomic(path / NAME, (json.dumps(facts) + "\n").encode())
        return _off(path, process, off_s) if what == "off" else ""
    finally:
        process.close()


def refusal(path: Path, what: What = "stop") -> RunError | None:
    """Say why `what` cannot be asked of the run in the folder `path`; None: it can.

    A run of another account, on another computer, or that no process is at work on can only be looked at.
    """
    try:
        held = owner(path)
        facts = os.lstat(path / LOCK)
    except (OSError, ValueError):
        held = None
    if what not in get_args(What):
        return _refused(path, "this cannot be asked of a run", str(what), ", ".join(get_args(What)))
    if held is None or not held.alive:
        return _refused(path, "no process is at work in this run folder", "", todo=f"look at it: hil status {quoted(path)}")
    if not own(facts):
        return _refused(path, "this run belongs to another account", "", "a run of this account")
    if held.host and held.host != host_name():
        return _refused(path, "this run is trained on another computer", held.host, todo=f"ask on {held.host}")
    if not held.pid:
        return _refused(path, "nobody knows which process trains this run", f"a damaged {LOCK}")
    if what in ("pause", "resume"):
        return _cannot_pause(path, what)
    return None


def _cannot_pause(path: Path, what: str) -> RunError | None:
    if (path / "search.toml").is_file():
        return _refused(path, "a search cannot be paused", "", todo=f"stop it, and go on later: hil resume {quoted(path)}")
    if scripted(path):
        return _refused(
            path, "a run whose devices a script has opened cannot be paused: they stay open until the script ends", "",
            todo="stop it; the same script goes on with it",
        )  # fmt: skip
    with suppress(RunError):
        paused = glance.told(path).last == "pause"
        if paused == (what == "pause"):
            return _refused(path, "this run is paused already" if paused else "this run is not paused", "")
    return None


def scripted(path: Path) -> bool:
    """Whether hil.train of a script made the run: its devices are the script's."""
    from hil import toml
    from hil.files import read_text

    try:
        return "python" in toml.loads(read_text(path / "config.toml", toml.MOST_BYTES))
    except (HilError, ValueError):
        return False


def _same(held: RunOwner) -> bool:
    """Whether the process with this pid is the one that wrote run.lock, and none that was given its pid later."""
    begun = started_s(held.pid)
    try:
        since = datetime.fromisoformat(held.since).timestamp()
    except (ValueError, OverflowError):
        return False
    return begun is not None and begun <= since + SLACK_S


def _off(path: Path, process: Process, off_s: float) -> str:
    """Wait for the end of the process, or kill it; return what is known of the outputs."""
    end = time.monotonic() + off_s
    while time.monotonic() < end and not process.gone(0.05) and _holds(path):
        pass
    if _holds(path) and not process.gone():
        process.kill()
        process.gone(off_s)
    end = time.monotonic() + GUARD_S
    while (known := standing(path)[1]) in (glance.UNKNOWN, "on") and time.monotonic() < end:
        time.sleep(0.1)
    return known


def standing(path: Path) -> tuple[str, str]:
    """The state of the run in the folder `path`, and what is known of its outputs, in words as in hil/run/index.py."""
    try:
        summary = read_object(path / "summary.json") if there(path / "summary.json") else {}
        alive, told = _holds(path), glance.told(path)
        return glance.state(told, summary, alive), glance.outputs(path, told, summary, alive)
    except RunError:
        return "unreadable", glance.UNKNOWN


def _holds(path: Path) -> bool:
    held = owner(path, patience_s=0.0)
    return held is not None and held.alive


def _refused(path: Path, what: str, got: str, allowed: str = "", todo: str = "") -> RunError:
    return RunError(what, where=str(path), got=got, allowed=allowed, outputs=UNTOUCHED, todo=todo)


class Listening:
    """The trainer's side: a context in which requests reach `stopping`.

    Args:
        path: of the run folder, which this process owns.
        stopping: what the loop looks at.
        note: writes to the journal.
        pausable: the run can close its devices and open them again.
    """

    def __init__(self, path: Path, stopping: Stopping, note: Callable[..., None], pausable: bool = False) -> None:
        self._path, self._stopping, self._note, self._pausable = path.absolute() / NAME, stopping, note, pausable
        held = owner(path, patience_s=0.0)
        self._since = "" if held is None else held.since
        self._seen: tuple[int, int] | None = None
        self._heard = ""
        self._hung_up = False
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="control", daemon=True)

    def __enter__(self) -> Self:
        with suppress(OSError):
            if read(self._path, os.getpid(), self._since)[0] is None:  # of an earlier process
                self._path.unlink()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leaving.set()  # the thread may hang on a disk: nobody waits for it

    def _listen(self) -> None:
        while not self._leaving.wait(LOOK_S):
            request = self._request()
            if request is not None:
                self._obey(request)
            if self._stopping.hung_up and not self._hung_up:
                self._hung_up = True
                with suppress(RunError):
                    self._note("terminal", message="it was closed, or its connection was lost; the run goes on")

    def _request(self) -> Request | None:
        """A request that was not seen before."""
        try:
            facts = os.lstat(self._path)
        except OSError:
            return None
        stamp = facts.st_mtime_ns, facts.st_ino
        if stamp == self._seen:
            return None
        self._seen = stamp
        found, why = read(self._path, os.getpid(), self._since)
        if found is None:
            with suppress(RunError):
                self._note("beware", message=f"{NAME} is not obeyed: {why}")
            return None
        if found.key == self._heard:
            return None
        self._heard = found.key
        return found

    def _obey(self, request: Request) -> None:
        refused = "its devices were opened by a script" if request.what == "pause" and not self._pausable else ""
        self._stopping.asks(request.what if not refused else "", request.by)  # first: no disk may stand before outputs off
        with suppress(RunError):
            self._note("asked", what=request.what, by=request.by, **({"refused": refused} if refused else {}))


def read(path: Path, pid: int, since: str) -> tuple[Request | None, str]:
    """Read a request to the process `pid` that holds its run since `since`; None, and why it is not obeyed."""
    try:
        with opened(path, most=MOST_BYTES) as file:
            facts = os.fstat(file.fileno())
            if not own(facts) or open_to_others(facts, 0o022):
                return None, "another account wrote it, or may write to it"
            table: Any = loads(file.read(MOST_BYTES), str(path))
        wanted = {key: table[key] for key in ("id", "what", "by", "pid", "since")}
    except (HilError, OSError, KeyError, TypeError) as error:
        return None, f"damaged: {error}"
    if not all(isinstance(wanted[key], str) for key in ("id", "what", "by")) or wanted["what"] not in get_args(What):
        return None, "an unknown word"
    if (wanted["pid"], wanted["since"]) != (pid, since):
        return None, "it was meant for another process"
    return Request(wanted["what"], plain(" ".join(wanted["by"].split()))[:200], wanted["id"][:64]), ""
