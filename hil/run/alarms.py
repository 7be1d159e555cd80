"""Alarms: a command of the user's, run when something happens to a run; it can neither block nor end it.

argv      as configured, split like a shell would (shlex), run without one
stdin     {"event": "fault", "run": "runs/x", "message": "…", "time": "2026-11-25T01:15:42+00:00", "left_out": 0}
environ   HIL_EVENT, HIL_RUN, HIL_MESSAGE

fault      ended by a fault, outputs safe        recovered   a fault was put right, the run goes on
unsafe     outputs not known to be safe          stalled     nothing was finished for a while
end        done
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from hil.errors import ConfigError, RunError
from hil.run.lock import UNTOUCHED
from hil.system import apart, end_all

WAITING = 16  # alarms that may wait for a slow command; more are left out
LAST_WORDS = 300


@dataclass(frozen=True)
class AlarmSettings:
    """Settings of the command that is run when something happens.

    Args:
        argv: empty for none.
        on: kinds that matter.
        timeout_s, every_s, stalled_s: see hil/config/watch.py, AlarmTable.
    """

    argv: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    timeout_s: float = 10.0
    every_s: float = 60.0
    stalled_s: float = 600.0


def argv_of(command: str | Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The words of a command.

    Raises:
        ConfigError: it cannot be split, or there is no such program.
    """
    if command is None:
        return ()
    try:
        words = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
    except ValueError as error:
        raise ConfigError(
            "not a command", where=where, got=f"{command}: {error}", outputs=UNTOUCHED, todo="close the quotes"
        ) from error
    if not words or any("\0" in word for word in words) or shutil.which(words[0]) is None:
        raise ConfigError(
            "no such program", where=where, got=words[0] if words else "nothing", allowed="a program on the PATH",
            outputs=UNTOUCHED, todo="give its full path; it is run without a shell",
        )  # fmt: skip
    return words


class Alarms:
    """A context; leaving it waits for alarms under way, each no longer than its timeout.

    Args:
        run: how the user calls the run.
        note: where a failing alarm is noted.
    """

    def __init__(
        self, settings: AlarmSettings, run: str, note: Callable[..., None], clock: Callable[[], float] = time.monotonic
    ):
        self._settings, self._run, self._note, self._clock = settings, run, note, clock
        self._events: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, name="alarms", daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leaving.set()
        waiting = self._events.qsize() + 1
        self._events.put(None)
        for thread in self._threads:
            thread.join((self._settings.timeout_s + 1) * min(waiting, 3))

    def tell(self, kind: str, message: str) -> None:
        """Run the command, if this kind of event matters; return at once."""
        settings = self._settings
        if not settings.argv or kind not in settings.on:
            return
        with self._lock:
            now = self._clock()
            if now - self._last.get(kind, -float("inf")) < settings.every_s or self._events.qsize() >= WAITING:
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return
            self._last[kind] = now
            left_out = self._left_out.pop(kind, 0)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self._events.put({"event": kind, "run": self._run, "message": message, "time": when, "left_out": left_out})

    def watch(self, progress: Callable[[], object]) -> None:
        """Note and tell "stalled" whenever `progress()` stays the same for `stalled_s`."""
        thread = threading.Thread(target=self._watch, args=(progress,), name="stalled", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self, progress: Callable[[], object]) -> None:
        seen, since, told = progress(), self._clock(), False
        while not self._leaving.wait(min(self._settings.stalled_s / 4, 30.0)):
            now = progress()
            if now != seen:
                seen, since, told = now, self._clock(), False
            elif not told and self._clock() - since >= self._settings.stalled_s:
                told = True
                message = f"nothing was finished for {self._clock() - since:.0f} s"
                with contextlib.suppress(RunError):
                    self._note("stalled", message=message)
                self.tell("stalled", message)

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            failure = self._ring(event)
            if failure:
                with contextlib.suppress(RunError):
                    self._note("alarm", message=f"the alarm for {event['event']} failed: {failure}")

    def _ring(self, event: Mapping[str, Any]) -> str:
        """Run the command; "" if all went well, else what did not."""
        environment = {**os.environ, "HIL_EVENT": event["event"], "HIL_RUN": event["run"], "HIL_MESSAGE": event["message"]}
        # files, not pipes: a grandchild that keeps a pipe open must not keep us
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
            told.write((json.dumps(event) + "\n").encode())
            told.seek(0)
            try:
                process = subprocess.Popen(
                    self._settings.argv, stdin=told, stdout=said, stderr=said, env=environment, **apart()
                )
            except (OSError, ValueError) as error:
                return str(error)
            try:
                code = process.wait(self._settings.timeout_s)
            except subprocess.TimeoutExpired:
                end_all(process)
                process.wait()
                return f"it took longer than {self._settings.timeout_s:g} s, and was ended"
            if code == 0:
                return ""
            said.seek(0)
            words = said.read()[-LAST_WORDS:].decode(errors="replace").strip()
            return f"exit status {code}" + (f": {words}" if words else "")
