"""Starts `hil` commands as processes of their own, quickly: everything is imported once, each command is a fork of that.

python zygote.py EXPERIMENT.toml RUN     trained once in this process, after which nothing is left to be imported
stdin    {"arguments": [...], "kill_at": [kind, nth] or null, "acts": path, "file_bytes": number or null, "log": path}, a line a
         command; it kills itself at its nth act of this kind, see Acts; no file of it can grow beyond file_bytes, see
         RLIMIT_FSIZE in getrlimit(2)
stdout   "ready"; then the exit code of each command, -9 if it was killed
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hil.cli import run


def main(experiment: str, folder: str) -> None:
    torch.set_num_threads(1)  # a pool of threads would not survive a fork
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(os.environ["HIL_TEST_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    assert run(["train", experiment, "--run", folder]) == 0
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(asked["arguments"], asked["log"], asked["file_bytes"], Acts(Path(asked["acts"]), asked["kill_at"]))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


class Acts:
    """All that the main thread of this process does to the files of a run folder, each act before it happens.

    What is durable before an act is what was durable after the one before, so to die before each of them, and half way through
    each write, is to die in every state that the files ever have.

    Args:
        told: gets a line for each act, its kind: what, and the name of the file, N for its numbers.
        kill_at: die of SIGKILL before the nth act of this kind, from 0.
    """

    def __init__(self, told: Path, kill_at: tuple[str, int] | None) -> None:
        self._told, self._kill_at, self._seen = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), kill_at, 0
        self._write = os.write
        for name in ("open", "fsync", "fdatasync", "ftruncate", "truncate", "replace", "unlink"):
            setattr(os, name, self._watched(name, getattr(os, name)))
        os.write = self._halved

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
        kind = f"{what} {re.sub('[0-9]+', 'N', path.name)}"
        self._write(self._told, f"{kind}\n".encode())
        if self._kill_at is None or kind != self._kill_at[0]:
            return
        if self._seen == self._kill_at[1]:
            last()
            os.kill(os.getpid(), signal.SIGKILL)
        self._seen += 1


def _become(arguments: Sequence[str], log: str, file_bytes: int | None, acts: Acts) -> None:
    code = 70
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        code = run(arguments)
    except BaseException:  # noqa: BLE001 (whatever it is: it is this process's end)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
