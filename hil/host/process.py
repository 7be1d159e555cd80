"""The host's process: opens the device, answers the trainer, and waits for a reason to make safe.

    trainer ends (its process, end of stdin; on another computer: end of Health)       |
    nothing heard for silence_s                                                  |->  no further call  ->  safe  ->  tell
    "done" on stdin, Ctrl-C of `hil host`                                        |

A host that a trainer started ends then: 0 after "done" and 3 after anything else, outputs safe; 4, they are not known to be.
One that was started by `hil host` waits for the next trainer.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hil import system
from hil.errors import Disconnected, Ended, HilError, UnsafeOutputs
from hil.host.charge import Charge
from hil.host.faults import table_of
from hil.host.lane import Lanes
from hil.host.locks import hold
from hil.host.record import Record
from hil.host.server import Service, check_listen, listening
from hil.host.session import Session
from hil.host.starter import Starter
from hil.host.supervisor import Supervisor

LOOK_S = 0.1
AWAY_S = 1.0  # a longer wait than this was no wait: this process did not run
GRACE_S = 1.0  # for answers that are on their way
SAFE, UNKNOWN = 3, 4
DONE = b"done"
EXPECTED = ("done", "stopped")


def main(starts: Starter) -> int:
    """Serve the process that started this one. Args: starts: starts workers."""
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := os.read(0, 1 << 16)):
            return 0
        line += piece
    try:
        charge = Charge.from_json(line)
        return serve(charge, starts, _answered, trainer_stdin=0)
    except HilError as error:
        _say({"error": table_of(error)})
        return UNKNOWN if isinstance(error, UnsafeOutputs) else 2


def _answered(port: int, token: str, lane: int) -> None:
    _say({"port": port, "token": token, "lane": lane})


def _say(table: object) -> None:
    with suppress(OSError):
        os.write(1, json.dumps(table).encode() + b"\n")


def serve(
    charge: Charge,
    starts: Starter,
    begun: Callable[[int, str, int], None],
    trainer_stdin: int | None = None,
    keys: Path | None = None,
) -> int:
    """Open the device, serve it, make it safe; return the exit status.

    Args:
        charge: what to serve.
        starts: starts workers; ended here.
        begun: called with port, token, and port of the lane (0: there is none) when the device is open.
        trainer_stdin: descriptor on which a trainer of this computer speaks; None: any trainer may come, one after the other.
        keys: folder of keys, for trainers on other computers.

    Raises:
        HilError: the device cannot be opened, or the address not be listened to.
    """
    check_listen(charge.listen, keys)
    record = Record(None if charge.log is None else Path(charge.log))
    limits = charge.limits
    supervisor = Supervisor(charge, record, starts)
    session = Session("" if trainer_stdin is None else secrets.token_hex(16), limits.longest_s)
    try:
        hold(charge.locks, limits.patience_s)
        supervisor.open()
        service = Service(supervisor, session, limits.longest_s, limits.silence_s)
        server, port = listening(service, charge.listen, keys)
        lanes = None if trainer_stdin is None else Lanes(session.token, service.drive)
    except BaseException:
        supervisor.end()
        raise
    record.note("open", say=False, pid=os.getpid(), port=port, device=supervisor.facts["device"])
    session.beat()
    begun(port, session.token, 0 if lanes is None else lanes.port)
    watch = Watch(charge, session, supervisor, trainer_stdin)
    verified, last = True, False

    def over(reason: str, end: bool) -> bool:
        session.end(_why(reason, limits.silence_s))
        supervisor.halt()
        safe = supervisor.end() if end else _made_safe(supervisor, record)
        session.settle("safe, read back" if safe else "not known to be safe", supervisor.resume if safe and not end else None)
        record.note(reason, say=not safe or reason not in EXPECTED, outputs="safe" if safe else "unknown")
        return safe

    try:
        while verified and not last:
            reason = watch.reason()
            last = trainer_stdin is not None or reason == "stopped"
            verified = over(reason, last)
    except KeyboardInterrupt:  # while it made safe what a trainer had left
        reason, last = "stopped", True
        verified = over(reason, last)
    if not last:
        supervisor.end()
    server.stop(GRACE_S).wait(2 * GRACE_S)
    record.drain()
    expected = reason in EXPECTED
    accepted = expected and charge.unguarded and supervisor.ready  # closed without an error, which is all that it can do
    return 0 if expected and (verified or accepted) else SAFE if verified else UNKNOWN


def _made_safe(supervisor: Supervisor, record: Record) -> bool:
    try:
        return supervisor.safe()
    except HilError as error:
        record.note("not made safe", because=error.what, got=error.got, outputs="unknown")
        return False


def _why(reason: str, silence_s: float) -> HilError:
    """Return what a trainer is told that calls after the end of its session."""
    if reason == "silence":
        return Ended(
            "the outputs were made safe, because nothing was heard from this program", where="host", got=f"{silence_s:g} s",
            allowed="a beat or a call before that", todo="see what held it up, or raise silence_s; then hil resume",
        )  # fmt: skip
    if reason == "trainer gone":
        return Disconnected("the connection ended, and the outputs were made safe", where="host")
    return Ended("the host was stopped", where="host", todo="start it again")


class Watch:
    """Waits for the reason to make safe.

    Args:
        charge: who the trainer is.
        session: when it was heard.
        supervisor: of the device; a worker that ends by itself is noticed.
        stdin: see `serve`.
    """

    def __init__(self, charge: Charge, session: Session, supervisor: Supervisor, stdin: int | None) -> None:
        self._supervisor = supervisor
        self._silence_s, self._session, self._stdin = charge.limits.silence_s, session, stdin
        self._inlet = system.Inlet(session.wake if stdin is None else stdin)
        self._held = b""
        self._trainer = None if charge.trainer is None else system.Process(charge.trainer)

    def reason(self) -> str:
        """Wait; return "done", "trainer gone", "silence", or "stopped"."""
        now = time.monotonic()
        while True:
            try:
                heard, _, gone = system.ready(self._inlet, None, self._trainer, LOOK_S)
            except KeyboardInterrupt:
                return "stopped"
            before, now = now, time.monotonic()
            if now - before > LOOK_S + AWAY_S:
                self._session.forgive(now - before)
            if heard and (said := self._said()):  # first: a last word may lie in the pipe of one that is gone
                return said
            if gone:
                return "trainer gone"
            if self._session.gone and self._stdin is None:
                return "trainer gone"
            if self._session.silent_s() >= self._silence_s:
                return "silence"
            self._supervisor.attend()
            now = time.monotonic()

    def _said(self) -> str:
        try:
            piece = self._inlet.take()
        except BlockingIOError:  # it was taken before
            return ""
        if self._stdin is None:  # a session was left
            return ""
        self._held += piece
        if DONE in self._held.split(b"\n")[:-1]:
            return "done"
        return "" if piece else "trainer gone"


def run(starts: Starter) -> None:
    """Be the process, and end it, whatever thread hangs. Args: starts: starts workers."""
    code = main(starts)
    sys.stdout.flush()
    os._exit(code)
