"""The loggers of a run together: a thread and a queue for each, so that none can block, slow down or end the training.

    point -> Entry -> queue of each, at most MOST_WAITING -> its thread -> its package -> logs/ in the run folder

What a logger raises, SystemExit too, is noted in the journal once, and it is told nothing more. One that hangs is left behind:
its queue fills, and what comes then is left out and counted. At the end of the run they get PATIENCE_S to finish.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from hil.errors import UNTOUCHED, ConfigError
from hil.files import remove_tree
from hil.foreign import said
from hil.loggers.logger import LOGGERS, Entry, Logger, Told
from hil.run.folder import LOGS, RunFolder
from hil.telling import Background
from hil.training.loop import Epoch, TrainingStep

PATIENCE_S = 60.0  # at the end of a run, for all together: a first start of MLflow makes its tables, which takes long
MOST_WAITING = 1 << 16  # entries, while a package is imported


class Note(Protocol):
    """A line for the journal, and for people."""

    def __call__(self, message: str) -> None:
        """Write it, from any thread."""


def check(names: Sequence[str], where: str) -> None:
    """Refuse a logger whose package is not installed, before anything is opened.

    Raises:
        ConfigError.
    """
    for name in names:
        _, package, extra = LOGGERS[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f'the package of the logger "{name}" is not installed', where=where, got=f"no module {package}",
                allowed=", ".join(n for n, (_, p, _) in LOGGERS.items() if importlib.util.find_spec(p) is not None),
                outputs=UNTOUCHED, todo=f"pip install '{extra}', or leave it out",
            )  # fmt: skip


class Loggers:
    """The loggers of one run; a context, which ends them with the summary that the run folder then has.

    Args:
        names: of LOGGERS.
        folder: of the run.
        note: told, once for each, why a logger stopped.
        patience_s: for all together, at the end.
    """

    def __init__(self, names: Sequence[str], folder: RunFolder, note: Note, patience_s: float = PATIENCE_S) -> None:
        self._folder, self._note, self._patience_s = folder, note, patience_s
        self._told = [_Told(name, note) for name in dict.fromkeys(names)]

    def begin(self, project: str, name: str, config: Mapping[str, Any], step: int) -> None:
        """Let them begin; of a run that is made from its beginning, what was logged before is removed.

        Args:
            project: what runs are grouped under.
            name: of the run.
            config: the whole experiment.
            step: where the run goes on.
        """
        if not self._told:
            return
        logs = self._folder.path / LOGS
        if step == 0:
            remove_tree(logs)
        told = Told(self._folder.path, logs, project, name, config, step)
        for one in self._told:
            one.later(partial(one.begin, told))

    def __call__(self, point: TrainingStep | Epoch) -> None:
        """Tell all of them of a step or an epoch."""
        if self._told:
            entry = _entry(point)
            for one in self._told:
                one.later(partial(one.log, entry))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._told:
            return
        summary: Mapping[str, Any] = {}
        with contextlib.suppress(Exception):  # a damaged one is told elsewhere
            summary = self._folder.read_json("summary.json")
        for one in self._told:
            one.later(partial(one.end, summary))
        until = time.monotonic() + self._patience_s
        for one in self._told:
            one.finish(max(0.1, until - time.monotonic()))


class _Told:
    """A logger in a thread of its own, which may fail or hang by itself."""

    def __init__(self, name: str, note: Note) -> None:
        self._name, self._note = name, note
        self._thread = Background(f"log {name}", MOST_WAITING)
        self._logger: Logger | None = None
        self._failed = False
        self._left_out = 0

    def later(self, job: Callable[[], None]) -> None:
        if not self._failed and not self._thread.later(partial(self._guarded, job)):
            self._left_out += 1

    def begin(self, told: Told) -> None:
        module, _, name = LOGGERS[self._name][0].partition(":")
        made: Logger = getattr(importlib.import_module(module), name)()
        made.begin(told)
        self._logger = made

    def log(self, entry: Entry) -> None:
        if self._logger is not None:
            self._logger.log(entry)

    def end(self, summary: Mapping[str, Any]) -> None:
        if self._logger is not None:
            self._logger.end(summary)

    def finish(self, wait_s: float) -> None:
        if self._failed:
            return
        if not self._thread.drain(wait_s):
            self._stop(f"it did not finish within {wait_s:.0f} s; its log is not complete")
        elif self._left_out:
            self._stop(f"it was too slow: {self._left_out:,} steps were left out of its log")

    def _guarded(self, job: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            job()
        except BaseException as error:  # noqa: BLE001 (anybody's package, in a thread of its own: a SystemExit must not pass)
            self._stop(f"it raised {type(error).__name__}: {said(error)}; the run goes on without it")

    def _stop(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            with contextlib.suppress(Exception):  # nobody is left who could hear of it
                self._note(f"log {self._name}: {why}")


def _entry(point: TrainingStep | Epoch) -> Entry:
    if isinstance(point, TrainingStep):
        found = {f"step/{key}": value for key, value in point.metrics.items()}
    else:
        times = {"wall_s": point.wall_s, "device_s": point.device_s, "samples_per_s": point.samples_per_s}
        parts = {"train": point.train, "validation": point.validation, "epoch": times}
        found = {f"{part}/{key}": value for part, values in parts.items() for key, value in values.items()}
    return Entry(point.epoch, point.step, time.time(), {key: float(value) for key, value in found.items()})
