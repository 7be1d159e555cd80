"""Every rung of the recovery ladder, before, during and after it: trainer, guardian and bench killed, or stopped.

In each cell a fault brings a training to exactly that rung, and the process gets SIGKILL or SIGSTOP there. Then

    trainer    killed, or stopped until the guardian kills it: all outputs must go off
    guardian   the trainer goes on; some shots later, or when it had long enough to notice, it is killed: all must go off
    bench      killed: its outputs are off with it, the run must stop by itself
               stopped: no answer any more, the run must stop by itself; then the bench goes on, or was ended: all must be off

and `hil resume` must end the run with the numbers of a run without faults, bit for bit: the bench has neither noise nor drift,
so a shot that is repeated gives the same answer. The outcomes

    identical           all outputs off, and the resumed run is the same
    safe, resumed       the same, but the run ended with outputs "unknown" (exit code 4), as nobody answered; they went off then
    NOT SAFE            an output stayed on
    NOT RESUMABLE       hil resume refused, or failed
    differs             the resumed run has other numbers
    not reached         the ladder did not come there: the trial says nothing

Every command is a fork of this process, in which all is imported; a cell is a fork too, and adopts what its trainers leave
behind (PR_SET_CHILD_SUBREAPER), so that nothing is left when it ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from hil.cli import run as hil
from hil.devices.recovery import Rung
from killing.moment import Moment, state
from killing.same import differences
from killing.switches import NEVER, until_off

ROOT = Path(__file__).resolve().parents[2]
WHEN = ("before", "during", "after")
VICTIMS = ("trainer", "guardian", "bench")
SIGNALS = {signal.SIGKILL: "killed", signal.SIGSTOP: "stopped"}
SILENCE_S = {"trainer": 4.0, "guardian": 4.0, "bench": 12.0}  # a bench that does not answer is waited for, several times
UNGUARDED_S = 2 * SILENCE_S["guardian"]  # a trainer that has not noticed by then that its guardian is gone will not
OFF_S = 10.0  # from the trainer's end: the attempts of the guardian
END_S = 120.0  # of a command
PR_SET_CHILD_SUBREAPER = 36
BENCH = {
    "[instruments.awg]\n": "[instruments.awg]\ntimeout_s = 1.0\n",
    "[instruments.scope]\n": "[instruments.scope]\ntimeout_s = 1.0\n",
    "[waveform]\n": "[guardian]\nsilence_s = SILENCE_S\n[recovery]\npatience_s = 3.0\n[waveform]\ntrigger_timeout_s = 0.5\n",
    "[virtual]\n": "[virtual]\nlinger_s = 30.0\n",
    "drift_rad_per_s = 4e-4": "drift_rad_per_s = 0.0\nnoise = 0.0",
}
EXPERIMENT = """
seed = 1
[data]
train_examples = 256
[network]
widths = [64, 16, 10]
[device]
bench = "bench.toml"
[encode]
gain = "1.5 V"
overflow = "fold"
period = "7.04 V"
[learner]
use = "adfa"
[train]
epochs = 4
batch = 16
threads = 1
checkpoint_every = 5
"""


@dataclass(frozen=True)
class Cell:
    rung: Rung
    when: str
    victim: str
    number: signal.Signals

    @property
    def name(self) -> str:
        return f"{self.rung.name.lower()} {self.when}: {self.victim} {SIGNALS[self.number]}"


@dataclass(frozen=True)
class Outcome:
    """word: see above. why: what is behind it. off_s: from the signal, or from the trainer's end, to the last "off"."""

    word: str
    why: str = ""
    off_s: float | None = None


CELLS = [Cell(*of) for of in product(Rung, WHEN, VICTIMS, SIGNALS)]
QUICK = [
    Cell(Rung.REPEAT, "after", "trainer", signal.SIGKILL), Cell(Rung.REOPEN, "during", "trainer", signal.SIGSTOP),
    Cell(Rung.RESTORE, "during", "guardian", signal.SIGKILL), Cell(Rung.CLEAR, "before", "guardian", signal.SIGSTOP),
    Cell(Rung.CLEAR, "during", "bench", signal.SIGKILL), Cell(Rung.REOPEN, "before", "trainer", signal.SIGKILL),
]  # fmt: skip


def measure(folder: Path, cells: Sequence[Cell], jobs: int) -> dict[Cell, Outcome]:
    """The outcome of each, `jobs` at a time."""
    torch.set_num_threads(1)  # a pool of threads would not survive a fork
    text = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8")
    for old, new in BENCH.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    for victim, silence_s in SILENCE_S.items():
        (folder / victim).mkdir()
        (folder / victim / "bench.toml").write_text(text.replace("SILENCE_S", str(silence_s)), encoding="utf-8")
        (folder / victim / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    begin = time.monotonic()
    whole = Command(["train", str(folder / "trainer" / "e.toml"), "--run", str(folder / "whole")], folder / "whole.log")
    if whole.ended(END_S) != 0:
        raise SystemExit(f"the run without faults failed:\n{whole.said()}")
    print(f"the run without faults took {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
    return dict(_side_by_side(folder, cells, jobs))


def _side_by_side(folder: Path, cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Outcome]]:
    waiting, running = list(cells), dict[int, tuple[Cell, Path]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                place = folder / cell.name.replace(" ", "-").replace(":", "")
                running[_forked(lambda place=place, cell=cell: _tried(place, folder, cell))] = cell, place
            pid, _ = os.wait()
            if pid not in running:
                continue
            cell, place = running.pop(pid)
            outcome = _read(place / "outcome.json")
            seconds = "" if outcome.off_s is None else f"; off after {outcome.off_s:.2f} s"
            print(f"{cell.name}: {outcome.word}{seconds}{'; ' * bool(outcome.why)}{outcome.why}", file=sys.stderr, flush=True)
            yield cell, outcome
    finally:  # of Ctrl-C: the cells got it too, and clean up
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        for pid in running:
            os.waitpid(pid, 0)


def _read(path: Path) -> Outcome:
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        return Outcome("not reached", f"the trial failed: {error}")


def _tried(place: Path, folder: Path, cell: Cell) -> int:
    """In a process of its own: the outcome of one cell into its folder, and nothing left behind."""
    place.mkdir()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        outcome = _outcome(place, folder, cell)
        (place / "outcome.json").write_text(json.dumps(outcome.__dict__), encoding="utf-8")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, and of who started this one: that it ends is known
        _clean_up()
    return 0


def _outcome(place: Path, folder: Path, cell: Cell) -> Outcome:
    run, told = place / "run", place / "told"
    moment = Moment(cell.rung, cell.when, cell.victim, cell.number, told, UNGUARDED_S)
    trainer = Command(["train", str(folder / cell.victim / "e.toml"), "--run", str(run)], place / "train.log", moment.arm)
    code = trainer.ended(END_S)
    ended_s = time.time()
    events = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()] if told.exists() else []
    if not events or events[0]["first"] != cell.rung.name:
        return Outcome("not reached", f"exit code {code}; {events or trainer.said()[:300]!r}")
    struck = events[-1]
    at = ended_s if cell.victim == "bench" else float(struck["time_s"])
    bench = int(struck["bench"])
    if cell.victim == "bench" and state(bench) == "T":
        os.kill(bench, signal.SIGCONT)
    off_s = until_off(run / "bench.log", at, within_s=ended_s - at + OFF_S, settle_s=0.3, gone=lambda: _over(bench))
    wrong = _unexpected(cell, code, struck)
    if off_s == NEVER:
        return Outcome("NOT SAFE", f"an output is on {OFF_S:g} s after the trainer's end; {wrong or f'exit code {code}'}")
    if wrong:
        return Outcome("NOT SAFE", wrong, off_s)
    _clean_up()
    again = Command(["resume", str(run)], place / "resume.log")
    if (resumed := again.ended(END_S)) != 0:
        return Outcome("NOT RESUMABLE", f"exit code {code}, then {resumed}: {again.said()[-500:]!r}", off_s)
    other = list(differences(folder / "whole", run))
    if other:
        return Outcome("differs", "; ".join(other[:3]), off_s)
    return Outcome("identical", "", off_s) if code != 4 else Outcome("safe, resumed", "exit code 4", off_s)


def _unexpected(cell: Cell, code: int | None, last: dict[str, Any]) -> str:
    """Why this is not how the trainer should have ended, or ""."""
    if code is None:
        return f"the trainer has not ended within {END_S:g} s"
    if cell.victim == "trainer":
        return "" if code == -signal.SIGKILL else f"exit code {code} of a trainer that was to be killed"
    if cell.victim == "guardian":
        if code == 3:  # it stopped by itself
            return ""
        if "renewed" not in last:
            return f"exit code {code} before anybody could notice"
        return "" if last["renewed"] else f"for {UNGUARDED_S:g} s nobody noticed that the guardian does nothing any more"
    return "" if code in (3, 4) else f"exit code {code} of a trainer that lost its bench"


class Command:
    """A `hil` command in a fork of this process. armed: called in it first."""

    def __init__(self, arguments: Sequence[str], log: Path, armed: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._pid = _forked(lambda: self._run(arguments, armed))

    def _run(self, arguments: Sequence[str], armed: Callable[[], None]) -> int:
        os.setpgid(0, 0)  # Ctrl-C is for whoever made this trial
        said = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        armed()
        return hil(arguments)

    def ended(self, within_s: float) -> int | None:
        """The exit code, negative for a signal; None and killed if it takes longer."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        return None

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]


def _forked(act: Callable[[], int]) -> int:
    """The pid of a child that does this and ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = act()
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001 (whatever it is: it is this process's end)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _over(pid: int) -> bool:
    return state(pid) in "ZX"


def _clean_up() -> None:
    """End all that this process started, or adopted, until there is none left."""
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def table(found: dict[Cell, Outcome]) -> str:
    """In Markdown. Rows: the rung and the moment. Columns: the process and the signal."""
    columns = [(victim, number) for victim in VICTIMS for number in SIGNALS]
    lines = ["| rung | moment | " + " | ".join(f"{victim} {SIGNALS[number]}" for victim, number in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for rung, when in product(Rung, WHEN):
        cells = [found.get(Cell(rung, when, *column)) for column in columns]
        if any(cells):
            words = " | ".join("" if cell is None else cell.word for cell in cells)
            lines.append(f"| {rung.name.lower()} | {when} | {words} |")
    return "\n".join(lines)


def result(found: dict[Cell, Outcome]) -> dict[str, Any]:
    """outputs_off_s_worst: of the cells in which outputs went off; those in which one did not are in "wrong"."""
    words = Counter(outcome.word for outcome in found.values())
    good = ("identical", "safe, resumed")
    return {
        "cells": len(found), "identical": words["identical"], "safe_resumable": words["safe, resumed"],
        "wrong": [f"{cell.name}: {outcome.word}: {outcome.why}" for cell, outcome in found.items() if outcome.word not in good],
        "outputs_off_s_worst": round(max((o.off_s for o in found.values() if o.off_s is not None), default=0.0), 3),
    }  # fmt: skip
