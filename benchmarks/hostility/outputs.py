"""How soon outputs are off when the trainer ends while what it tells, and writes to, takes nothing any more.

    stderr is a full pipe, or a stopped terminal     then the trainer is killed; or asked to stop
    the disk under the run folder hangs              then the trainer is killed; or asked to stop
    the guardian is stopped                          then, once another one is there, the trainer is killed

`hil train` on the virtual waveform bench, in its own process. The time is from the signal to the last "off" in the log of the
simulated generator, see benchmarks/kill.py. A trainer that is asked to stop ends its step first, which is in the time.

The disk that hangs is a sitecustomize module of this benchmark: as soon as a file named `hangs` is there, opening and syncing
a file under the run folder does not return, in the trainer and in the guardian.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hil.guardian.record import NAME

ROOT = Path(__file__).resolve().parent.parent.parent
LINGER_S = 30.0
START_S = 120.0
QUIET_S = 0.5  # of the log: nothing goes on any more
EXPERIMENT = """
seed = 1
[data]
train_examples = 320
[network]
widths = [64, 20, 10]
[device]
bench = "bench.toml"
[encode]
gain = "1.5 V"
overflow = "fold"
period = "7.04 V"
[learner]
use = "adfa"
[train]
epochs = 100000
batch = 16
threads = 1
"""
DISK = """
import builtins, io, os, time

HANGS, RUN = os.environ["HIL_BENCHMARK_HANGS"], os.environ["HIL_BENCHMARK_RUN"]


def waiting(act, file_of):
    def wait(first, *args, **more):
        if os.access(HANGS, os.F_OK) and file_of(first).startswith(RUN):
            while True:
                time.sleep(3600)
        return act(first, *args, **more)

    return wait


def named(path):
    return path if isinstance(path, str) else os.fspath(path) if hasattr(path, "__fspath__") else ""


def described(file):
    return os.readlink(f"/proc/self/fd/{file}")


os.open, io.open, builtins.open = waiting(os.open, named), waiting(io.open, named), waiting(builtins.open, named)
os.fsync, os.fdatasync = waiting(os.fsync, described), waiting(os.fdatasync, described)
"""
Spoil = Callable[["Trial"], None]


class Trial:
    """A run whose output is on. stderr: of the trainer, and of its guardian."""

    def __init__(self, folder: Path, stderr: int) -> None:
        self.run, self.hangs, self._log = folder / "run", folder / "hangs", folder / "outputs.jsonl"
        bench = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8")
        bench = bench.replace("[virtual]\n", f'[virtual]\nlinger_s = {LINGER_S}\nlog_path = "{self._log}"\n')
        (folder / "bench.toml").write_text(bench, encoding="utf-8")
        (folder / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
        (folder / "sitecustomize.py").write_text(DISK, encoding="utf-8")
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1",
            "HIL_BENCHMARK_HANGS": str(self.hangs), "HIL_BENCHMARK_RUN": str(self.run), "HIL_LOCKS": str(folder / "locks"),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hil", "train", str(folder / "e.toml"), "--run", str(self.run)],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr, env=environment, start_new_session=True,
        )  # fmt: skip
        self._until(lambda: any((self.run / "checkpoints").glob("step-*.json")) and self._steps() > 2, "no step")

    def guardians(self) -> list[int]:
        """Oldest first, as they said themselves that they watch."""
        lines = (self.run / NAME).read_text(encoding="utf-8").splitlines() if (self.run / NAME).exists() else []
        return [line["guardian"] for line in map(json.loads, lines) if line["event"] == "watching"]

    def renewed(self) -> None:
        """The guardian stands still, and the trainer has another one."""
        before = self.guardians()
        os.kill(before[-1], signal.SIGSTOP)
        self._until(lambda: len(self.guardians()) > len(before), "the guardian stands still, and there is no other")

    def end(self, number: signal.Signals) -> float:
        """Seconds from the signal `number` to off; infinite if something stays on until the bench itself ends."""
        begin = time.time()
        self.process.send_signal(number)
        while time.time() - begin < LINGER_S - 5.0:
            on, changed_s = self._outputs()
            if not on and time.time() - max(changed_s, begin) > QUIET_S:
                return max(0.0, changed_s - begin)
            time.sleep(0.02)
        return float("inf")

    def close(self) -> None:
        for pid in (self.process.pid, *self.guardians()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _steps(self) -> int:
        return (self.run / "journal.jsonl").read_bytes().count(b'"kind":"commit"')

    def _outputs(self) -> tuple[set[tuple[str, int]], float]:
        """Which are on, and when the last one was switched."""
        on, changed_s = set[tuple[str, int]](), 0.0
        for line in self._log.read_bytes().split(b"\n")[:-1] if self._log.exists() else []:
            facts = json.loads(line)
            if "on" in facts:
                output, changed_s = (str(facts["box"]), int(facts["channel"])), float(facts["time_s"])
                on = on | {output} if facts["on"] else on - {output}
        return on, changed_s

    def _until(self, true: Callable[[], bool], otherwise: str) -> None:
        end = time.monotonic() + START_S
        while not true():
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise SystemExit(otherwise)
            time.sleep(0.02)


def hung(trial: Trial) -> None:
    trial.hangs.touch()


def unspoilt(trial: Trial) -> None:
    """The terminal is what is spoilt."""


@contextmanager
def full_pipe() -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor to write to, and what makes it take nothing any more."""
    reads, writes = os.pipe()

    def fill() -> None:
        other = os.open(f"/proc/self/fd/{writes}", os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while True:
                os.write(other, b"\n" * 4096)
        os.close(other)

    yield writes, fill
    os.close(reads)
    os.close(writes)


@contextmanager
def stopped_terminal() -> Iterator[tuple[int, Callable[[], None]]]:
    """Stop the terminal by Ctrl-S, where `full_pipe` fills the pipe."""
    master, slave = pty.openpty()
    yield slave, lambda: termios.tcflow(slave, termios.TCOOFF)
    os.close(master)
    os.close(slave)


@contextmanager
def nowhere() -> Iterator[tuple[int, Callable[[], None]]]:
    yield subprocess.DEVNULL, lambda: None


CASES: dict[str, tuple[Any, Spoil, signal.Signals]] = {
    "blocked_terminal": (stopped_terminal, unspoilt, signal.SIGKILL),
    "stopped_guardian": (nowhere, Trial.renewed, signal.SIGKILL),
    "hung_disk": (nowhere, hung, signal.SIGKILL),
    "full_pipe": (full_pipe, unspoilt, signal.SIGKILL),
    "hung_disk_asked": (nowhere, hung, signal.SIGTERM),
    "full_pipe_asked": (full_pipe, unspoilt, signal.SIGTERM),
}
QUICK = ("blocked_terminal", "stopped_guardian", "hung_disk_asked")
ROUNDS = 5


def tried(case: str) -> float:
    """Seconds until off."""
    blocked, spoil, number = CASES[case]
    with tempfile.TemporaryDirectory(prefix="hil-outputs-", ignore_cleanup_errors=True) as folder, blocked() as (stderr, block):
        trial = Trial(Path(folder), stderr)
        try:
            block()
            spoil(trial)
            return trial.end(number)
        finally:
            trial.close()


def measure(quick: bool) -> dict[str, object]:
    """Longest time to off, s, by case."""
    names, rounds = (QUICK, 1) if quick else (tuple(CASES), ROUNDS)
    return {f"{name}_off_s_worst": round(max(tried(name) for _ in range(rounds)), 3) for name in names}
