"""A process that dies at a chosen state of the files of its run folder, or of what it programs on a simulated node."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from small import Command
from torch import Tensor

from sim_devices.simulated import Simulated

PROGRAM = "program"
Kill = tuple[str, int]  # an act's kind, and which of them


class Acts:
    """All that the main thread of this process does to the files of a run folder, each act before it happens.

    What is durable before an act is what was durable after the one before, so to die before each of them, and half way through
    each write, is to die in every state that the files ever have.

    Each level programmed on a simulated node is an act too, PROGRAM, and is held against the range and the step of its port,
    from rest on: where a process that died left its node, the next one finds it safe.

    Args:
        told: gets a line for each act, its kind: what, and the name of the file, N for its numbers.
        kill_at: die of SIGKILL before the nth act of this kind, from 0.
    """

    def __init__(self, told: Path, kill_at: Kill | None) -> None:
        self._told, self._kill_at, self._seen = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), kill_at, 0
        self._write = os.write
        for name in ("open", "fsync", "fdatasync", "ftruncate", "truncate", "replace", "unlink"):
            setattr(os, name, self._watched(name, getattr(os, name)))
        os.write = self._halved
        Simulated.program = self._programmed(Simulated.program)  # type: ignore[method-assign]

    def _watched(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def watched(of: Any, *more: Any, **named: Any) -> Any:
            if name != "open" or more[0] & (os.O_WRONLY | os.O_RDWR):
                self._comes(name, of)
            return act(of, *more, **named)

        return watched

    def _halved(self, file: int, data: bytes) -> int:
        self._comes("write", file)
        self._comes("half of a write", file, lambda: self._write(file, data[: len(data) // 2]))
        return self._write(file, data)

    def _comes(self, what: str, of: Any, last: Callable[[], object] = lambda: None) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        path = Path(os.readlink(f"/proc/self/fd/{of}") if isinstance(of, int) else of)
        if not any((place / "run.lock").exists() for place in path.parents[:2]):
            return
        self._at(f"{what} {re.sub('[0-9]+', 'N', path.name)}", last)

    def _programmed(self, program: Callable[[Simulated, Tensor], None]) -> Callable[[Simulated, Tensor], None]:
        def watched(node: Simulated, params: Tensor) -> None:
            self._at(PROGRAM, lambda: None)
            port, held = node.spec.params, node._params
            assert port is not None
            way = port.check(params) - (port.resting() if held is None else held)
            assert float(way.abs().max()) <= (port.max_step or float("inf")) * (1 + 1e-6), way
            program(node, params)

        return watched

    def _at(self, kind: str, last: Callable[[], object]) -> None:
        self._write(self._told, f"{kind}\n".encode())
        if self._kill_at is None or kind != self._kill_at[0]:
            return
        if self._seen == self._kill_at[1]:
            last()
            os.kill(os.getpid(), signal.SIGKILL)
        self._seen += 1


def killed(acts: Path, kill_at: Kill | None, *arguments: object) -> int:
    """The exit code of a command: -9 if it died there, 0 if it came to its end."""
    command = Command(*arguments, first=lambda: Acts(acts, kill_at))
    code = command.ended()
    assert code in ((0, -9) if kill_at else (0,)), f"{kill_at}: {command.said()[-3000:]}"
    return code


def counted(acts: Path, *arguments: object) -> Counter[str]:
    """What the command, undisturbed, does to its files, and how often, in the order of first times."""
    killed(acts, None, *arguments)
    return Counter(acts.read_text(encoding="utf-8").splitlines())


def survive(
    start: Callable[[Path, Kill | None], int], finished: Callable[[Path], bool], same: Callable[[Path], bool], folder: Path,
    kills: Iterable[Kill],
) -> None:  # fmt: skip
    """A run that is killed there, one of each start, then goes to its end, and is the same; a new one when there is no more of
    it to be killed.

    Args: start: begins a run folder, or goes on with it; its exit code. finished: False also of a folder that is not there.
    """
    died, number = list[Kill](), 0

    def ended(run: Path) -> None:
        assert same(run), f"killed at {died}"
        died.clear()

    run = folder / "r0"
    for at in kills:
        if finished(run) or start(run, at) == 0:
            ended(run)
            number += 1
            run = folder / f"r{number}"
            assert start(run, at) == -9, f"{at} did not come"
        died.append(at)
    if not finished(run):
        start(run, None)
    ended(run)
