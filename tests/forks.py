"""Run the tests in forks of the process that has collected them: `pytest tests --forks 6`.

What takes seconds in each process, importing torch and collecting thousands of tests, is done once. Files are handed out in
their order, each as a whole, as tests of one file share fixtures, or those of one `xdist_group` together; a fork asks for its
next file before the last test of the one it has, so that pytest knows which fixtures are needed further. Reports and warnings
come back as text. Where a system has no forks, pytest-xdist does it: `-n 4 --dist loadfile`.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
from _pytest.config import create_terminal_writer
from warm import once_in_all

LEAVE_S = 10.0
LOOK_S = 2.0  # a process that a test has left may hold the pipe of a fork that has ended open


class Forks:
    """The plugin of the process that has collected.

    Args: count: how many forks. imported: modules that many tests need, as they are imported once here.
    """

    def __init__(self, count: int, imported: Sequence[str]) -> None:
        self._count, self._imported = count, imported
        self._files: deque[list[int]] = deque()
        self._forks: dict[Connection, Fork] = {}

    def pytest_collection_finish(self) -> None:
        """Import what is shared by all forks."""
        for module in self._imported:
            __import__(module)
        once_in_all()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run all; None where nothing is to be run: pytest itself knows how to end then."""
        if session.config.option.collectonly or session.testsfailed or not session.items:
            return None
        files: dict[Path | str, list[int]] = {}
        for number, item in enumerate(session.items):
            files.setdefault(_group(item), []).append(number)
        self._files.extend(files.values())
        _alone()
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # one for all forks
        try:
            for _ in range(min(self._count, len(files))):
                self._begin(session)
            while self._forks:
                for end in wait(list(self._forks), LOOK_S) or list(self._forks):
                    assert isinstance(end, Connection)
                    self._listen(session, end)
        finally:
            for fork in self._forks.values():
                fork.end()
        return True

    def _begin(self, session: pytest.Session) -> None:
        ours, its = Pipe()
        fork = Fork(session, its, [ours, *self._forks])
        self._forks[ours] = fork
        fork.process.start()
        its.close()

    def _listen(self, session: pytest.Session, end: Connection) -> None:
        """Take one thing that a fork has said, or see that it has ended."""
        fork = self._forks[end]
        try:
            if not end.poll():
                if fork.process.is_alive():
                    return
                raise EOFError
            kind, data = json.loads(end.recv_bytes())
        except (EOFError, ConnectionResetError):
            del self._forks[end]
            fork.end()
            self._ended(session, fork)
        else:
            self._told(session, end, fork, kind, data)

    def _told(self, session: pytest.Session, end: Connection, fork: Fork, kind: str, data: Any) -> None:
        hook = session.config.hook
        if kind == "next":
            file = self._files.popleft() if self._files else []
            fork.left += file
            end.send_bytes(json.dumps(file).encode())
        elif kind == "warning":
            hook.pytest_warning_recorded.call_historic(kwargs=_warning(**data))
        else:
            report = hook.pytest_report_from_serializable(config=session.config, data=_as_made(data))
            if report.when == "teardown":
                del fork.left[0]
            _report(session, report)

    def _ended(self, session: pytest.Session, fork: Fork) -> None:
        """A fork has ended: if in a test, that one has failed, and another fork runs the rest."""
        code = f"a fork ended with exit code {fork.process.exitcode}"
        if fork.left:
            item = session.items[fork.left.pop(0)]
            if fork.left:
                self._files.appendleft(fork.left)
            self._begin(session)
            _report(session, pytest.TestReport(item.nodeid, item.location, {}, "failed", f"{code} in this test", "call"))
        elif fork.process.exitcode:
            raise session.Failed(code)


class Fork:
    """One fork: what runs in it, and what the process that has collected knows of it.

    Args: session: with all tests. end: to speak with that process. not_its: ends that the fork has nothing to do with.
    """

    def __init__(self, session: pytest.Session, end: Connection, not_its: list[Connection]) -> None:
        self.left: list[int] = []  # tests that it was given and has not ended, in their order
        self.process = get_context("fork").Process(target=self._run)
        self._session, self._end, self._not_its = session, end, not_its
        self._hears = False

    def end(self) -> None:
        """Wait for its end, which a thread that a test has left may keep from coming."""
        self.process.join(LEAVE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _run(self) -> None:
        import numpy as np

        for end in self._not_its:
            end.close()  # or it would not end with the process that has collected
        random.seed()
        np.random.seed()  # noqa: NPY002
        config = self._session.config
        plugins = config.pluginmanager
        plugins.unregister(name="terminalreporter")
        plugins.register(Stderr(config), "terminalreporter")
        capture: Any = plugins.get_plugin("capturemanager")
        capture.stop_global_capturing()  # its files and their positions belong to all forks
        capture.start_global_capturing()
        capture.suspend_global_capture(in_=False)
        factory = config._tmp_path_factory  # type: ignore[attr-defined]
        factory._basetemp = factory.mktemp(f"fork{os.getpid()}", numbered=False)
        plugins.register(self)  # which repeats the warnings so far
        self._hears = True
        for item, following in pairwise(self._items()):
            assert item is not None
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        self._session._setupstate.teardown_exact(None)  # the fixtures of the session

    def _items(self) -> Iterator[pytest.Item | None]:
        while True:
            self._say("next", None)
            numbers = json.loads(self._end.recv_bytes())
            if not numbers:
                yield None
                return
            yield from (self._session.items[number] for number in numbers)

    def _say(self, kind: str, data: object) -> None:
        self._end.send_bytes(json.dumps([kind, data]).encode())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell it."""
        config = self._session.config
        self._say("report", config.hook.pytest_report_to_serializable(config=config, report=report))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: tuple[str, int, str] | None
    ) -> None:
        """Tell it."""
        if self._hears:
            self._say("warning", {
                "text": str(warning_message.message), "category": warning_message.category.__name__, "when": when,
                "nodeid": nodeid, "file": warning_message.filename, "line": warning_message.lineno, "location": location,
            })  # fmt: skip


class Stderr:
    """What a fork has as its terminal reporter: where pytest-timeout writes the stacks, which is captured."""

    def __init__(self, config: pytest.Config) -> None:
        file = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115, for as long as the fork lives
        self._tw = create_terminal_writer(config, file)


def _group(item: pytest.Item) -> Path | str:
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else item.path


def _alone() -> None:
    """Threads do not survive a fork, but what they have locked does."""
    tasks = Path("/proc/self/task")
    count = len(list(tasks.iterdir())) if tasks.is_dir() else 1
    if count > 1:
        raise pytest.UsageError(
            f"--forks: {count} threads run in the process that has collected; find what starts them at import"
        )


def _report(session: pytest.Session, report: pytest.TestReport) -> None:
    session.config.hook.pytest_runtest_logreport(report=report)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)


def _as_made(report: dict[str, Any]) -> dict[str, Any]:
    """A report as it was before it was text, which has no tuples."""
    skipped = report["longrepr"]
    return {
        **report, "location": tuple(report["location"]), "sections": [tuple(part) for part in report["sections"]],
        "user_properties": [tuple(pair) for pair in report["user_properties"]],
        "longrepr": tuple(skipped) if isinstance(skipped, list) else skipped,
    }  # fmt: skip


def _warning(
    text: str, category: str, file: str, line: int, when: str, nodeid: str, location: list[Any] | None
) -> dict[str, Any]:
    """The arguments of the hook, with a warning of that name."""
    kind = type(category, (Warning,), {})
    return {
        "warning_message": warnings.WarningMessage(kind(text), kind, file, line), "when": when, "nodeid": nodeid,
        "location": location and tuple(location),
    }  # fmt: skip
