"""Starts `hil` commands as processes of their own, quickly: everything is imported once, each command is a fork of that.

python zygote.py EXPERIMENT.toml RUN     trained once in this process, after which nothing is left to be imported
stdin    {"arguments": [...], "kill_after_s": number or null, "file_bytes": number or null, "log": path}, a line a command;
         no file of it can grow beyond file_bytes, see RLIMIT_FSIZE in getrlimit(2)
stdout   "ready"; then the exit code of each command, -9 if it was killed
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence

import torch

import hil.bench  # noqa: F401
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
            _become(asked["arguments"], asked["log"], asked["file_bytes"])
        print(_ended(pid, asked["kill_after_s"]), file=answers, flush=True)


def _become(arguments: Sequence[str], log: str, file_bytes: int | None) -> None:
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


def _ended(pid: int, kill_after_s: float | None) -> int:
    end = None if kill_after_s is None else time.monotonic() + kill_after_s
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so the pid is its own
            end = None
        time.sleep(0.002)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
