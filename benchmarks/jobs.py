"""Runs of a study: made side by side by `hil train`, gone on with by `hil resume`, and put into a table.

A study is a list of jobs. Each job is a row of the table, a seed, an experiment file, what is set in it, and a run folder. A
process of one thread makes each run. A study may be stopped at any time (Ctrl-C, SIGTERM, a killed machine): the same command
goes on from the last checkpoints, and a finished run is not made again. Beside a run folder NAME stand NAME.log, what hil said,
and NAME.asked.toml, the settings that were asked for: a folder with other settings is refused.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from recording import record

from hil.config.experiment import Experiment, read_experiment
from hil.config.read import dump
from hil.errors import HilError
from hil.files import read_object, read_text, write_atomic
from hil.run import glance, journal
from hil.run.index import Index

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
BEGIN = (*glance.BEGINS, "epoch", "checkpoint")  # lines of a journal after which an epoch begins


@dataclass(frozen=True)
class Job:
    """A run of a study.

    Args:
        row: of the table.
        seed: of the run.
        experiment: path of its file.
        sets: "section.key=value" each.
        folder: of the run.
        facts: columns of the study's own, for its CSV.
    """

    row: str
    seed: int
    experiment: Path
    sets: tuple[str, ...]
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Experiment:
        """The experiment as the run is to have it. Raises: HilError: it makes no sense."""
        return read_experiment(self.experiment, (*self.sets, f"seed={self.seed}", "train.threads=1"))

    @property
    def asked(self) -> Path:
        """The file beside the folder that says what was asked for."""
        return self.folder.with_name(f"{self.folder.name}.asked.toml")

    def summary(self) -> dict[str, Any]:
        """The summary of the finished run; empty if it is not finished."""
        with suppress(HilError):
            found = read_object(self.folder / "summary.json")
            return dict(found) if found.get("status") == "done" else {}
        return {}

    def command(self) -> list[str]:
        """Arguments of hil that begin the run or go on with it."""
        if (self.folder / "config.toml").exists():
            return ["resume", str(self.folder)]
        sets = (*self.sets, f"seed={self.seed}", "train.threads=1")
        return ["train", str(self.experiment), "--run", str(self.folder), *(f"--set={text}" for text in sets)]


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Args:
        state: a word, as in `hil list runs`, or "waiting".
        done: epochs, a fraction too.
        epochs: of the run.
        epoch_s: seconds an epoch; None: not known.
    """

    state: str
    done: float
    epochs: int
    epoch_s: float | None = None

    def left_s(self, epoch_s: float | None = None) -> float | None:
        """Seconds until the run ends; None: not known. epoch_s: of a run like it, where its own is not known."""
        if self.state == "done":
            return 0.0
        one = self.epoch_s or epoch_s
        return None if one is None else one * (self.epochs - self.done)


def standing(job: Job) -> Standing:
    """Read how far a run is from its journal."""
    epochs = job.settings.train.epochs
    entry = next(iter(Index([job.folder]).entries()), None) if job.folder.exists() else None
    if entry is None:
        return Standing("waiting", 0.0, epochs)
    try:
        events = journal.contents(job.folder / "journal.jsonl", most=0).events()
    except HilError:
        events = []
    marks = [(line["kind"], when) for line in events if line["kind"] in BEGIN and (when := glance.moment(line)) is not None]
    took = [end - begin for (_, begin), (kind, end) in pairwise(marks) if kind == "epoch"]
    share = 1.0 if entry.state == "done" else (entry.step or 0) / entry.steps if entry.steps else 0.0
    return Standing(entry.state, share * epochs, epochs, statistics.median(took) if took else None)


class Study:
    """Jobs that belong together.

    Args:
        jobs: in the order in which they are made.
        processes: runs side by side.
        on: where they compute, as [train] on; None: as their files say.

    Raises:
        SystemExit: a job makes no sense, or its folder holds a run with other settings.
    """

    def __init__(self, jobs: Iterable[Job], processes: int = 1, on: str | None = None) -> None:
        more = (f"train.on={on}",) if on else ()
        self.jobs, self.processes = [replace(job, sets=(*job.sets, *more)) for job in jobs], processes
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped, self._made = threading.Lock(), False, 0
        try:
            other = [job for job in self.jobs if job.settings and job.folder.exists() and not _asked_for(job)]
        except HilError as error:
            sys.exit(str(error))
        if other:
            sys.exit(
                f"{other[0].folder}: a run with other settings than are asked for now, in {len(other)} of {len(self.jobs)} "
                "folders; remove or rename it, or choose another --runs"
            )

    @classmethod
    def of(cls, jobs: Iterable[Job], chosen: argparse.Namespace) -> Study:
        """Take the jobs whose row has the text of --only, as the other options of add_options say.

        Raises:
            SystemExit: no row has it; or as above.
        """
        found = list(jobs)
        taken = [job for job in found if chosen.only in job.row]
        if not taken:
            rows = dict.fromkeys(job.row for job in found)
            sys.exit(f"--only {chosen.only!r}: no row has it; there are {'; '.join(rows)}")
        return cls(taken, chosen.jobs, chosen.device)

    def run(self) -> None:
        """Make what is missing. Raises: SystemExit: it was stopped; the same command goes on."""
        due = [job for job in self.jobs if not job.summary()]
        self._made = len(self.jobs) - len(due)
        ends = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]  # nohup ignores one
        before = {one: signal.signal(one, lambda *_: self._stop()) for one in ends}
        pool = ThreadPoolExecutor(self.processes)
        try:
            for future in [pool.submit(self._make, job) for job in due]:
                future.result()
        except KeyboardInterrupt:
            self._stop()
        finally:
            pool.shutdown(cancel_futures=True)  # waits for those at work: they write a checkpoint and end
            for one, handler in before.items():
                signal.signal(one, handler)
        if self._stopped:
            sys.exit(f"stopped; {len(self.unfinished())} of {len(self.jobs)} runs are left, the same command goes on")

    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if not job.summary()]

    def listing(self) -> list[str]:
        """A line for each run: its state, epochs done and seconds an epoch; then what is left in all."""
        found = [(job, standing(job)) for job in self.jobs]
        wide = max((len(job.folder.name) for job, _ in found), default=0)
        lines = []
        for job, one in found:
            score = f"test {summary[of('test', summary)]:.4f}" if (summary := job.summary()) else ""
            pace = f"{one.epoch_s:8.1f} s an epoch" if one.epoch_s else ""
            lines.append(
                f"{job.folder.name:<{wide}}  {one.state:<11}  {one.done:6.1f} of {one.epochs} epochs  {pace}  {score}".rstrip()
            )
        return [*lines, self.left(found)]

    def left(self, found: Sequence[tuple[Job, Standing]] | None = None) -> str:
        """A sentence: how many runs are done, and how long the others take with so many processes."""
        found = found or [(job, standing(job)) for job in self.jobs]
        paces: dict[str, list[float]] = {}
        for job, one in found:
            if one.epoch_s:
                paces.setdefault(job.row, []).append(one.epoch_s)
        usual = statistics.mean(map(statistics.median, paces.values())) if paces else None  # where a row has no epoch yet
        times = [one.left_s(statistics.median(paces[job.row]) if job.row in paces else usual) for job, one in found]
        due = sum(one.state != "done" for _, one in found)
        side = f"{self.processes} processes" if self.processes > 1 else "1 process"
        known = [time for time in times if time is not None]
        long = (
            f"about {said(sum(known) / self.processes)} with {side}"
            if len(known) == len(times)
            else "not known before the first epoch"
        )
        return f"{len(found) - due} of {len(found)} runs done; left: {long if due else 'nothing'}"

    def table(self, split: str = "test") -> dict[str, dict[str, float]]:
        """Statistics of the finished runs, a row each: mean, std, worst, seeds; scores on a split, accuracies as fractions."""
        rows: dict[str, list[float]] = {}
        for job in self.jobs:
            if found := job.summary():
                rows.setdefault(job.row, []).append(found[of(split, found)])
        return {row: statistics_of(scores) for row, scores in rows.items()}

    def _make(self, job: Job) -> None:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(job.asked, dump(job.settings).encode())
        log = job.folder.with_name(f"{job.folder.name}.log")
        with log.open("ab") as file:
            with self._lock:
                if self._stopped:
                    return
                child = subprocess.Popen(
                    [sys.executable, "-m", "hil", *job.command()], cwd=ROOT, stdout=file, stderr=file,
                    env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
                )  # fmt: skip  # a session of its own: Ctrl-C reaches it once, by _stop
                self._children.add(child)
            code = child.wait()
        with self._lock:
            self._children.discard(child)
            self._made += code == 0
        found = job.summary()
        if not found:
            print(f"{job.folder.name}: exit {code}, see {log}", flush=True)
            return
        score = f"{job.folder.name}: test {found[of('test', found)]:.4f}, {found['wall_s']:.0f} s"
        print(f"{self._made:>4}/{len(self.jobs)}  {score}", flush=True)
        if self._made % 5 == 0:
            print(f"           {self.left()}", flush=True)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.send_signal(signal.SIGINT)


def of(split: str, summary: Mapping[str, Any]) -> str:
    """Return the key of the score on a split in a summary, which is that of its metric."""
    return f"{split}_{summary.get('metric', 'accuracy')}"


def statistics_of(scores: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation between seeds, worst, and number of seeds."""
    std = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return {"mean": statistics.mean(scores), "std": std, "worst": min(scores), "seeds": len(scores)}


def markdown(table: Mapping[str, Mapping[str, float]], head: str = "row") -> list[str]:
    """The lines of a table for RESULTS.md."""
    rows = [f"| {name} | {r['mean']:.4f} | {r['std']:.4f} | {r['worst']:.4f} | {r['seeds']:.0f} |" for name, r in table.items()]
    return [f"| {head} | mean | std | worst | seeds |", "|---|---|---|---|---|", *rows]


def said(seconds: float) -> str:
    """A duration in words."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def write_csv(path: Path, jobs: Sequence[Job]) -> None:
    """Write a row for every finished run: the job's facts, correlation of g with f', accuracies."""
    facts = list(dict.fromkeys(key for job in jobs for key in job.facts))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["row", "seed", *facts, "correlation", "validation_accuracy", "test_accuracy", "folder"])
        for job in jobs:
            if found := job.summary():
                values = [job.facts.get(key, "") for key in facts]
                scores = [found.get(of("validation", found), ""), found[of("test", found)]]
                out.writerow([job.row, job.seed, *values, correlation(found), *scores, job.folder.name])


def correlation(summary: Mapping[str, Any]) -> float | str:
    """Mean over the hidden layers of |corr(g, f')|; "" where the rule has no g, or where it is not defined (constant g)."""
    found = [abs(one) for one in summary.get("feedback_correlation", ()) if one is not None]
    return statistics.mean(found) if found else ""


def add_options(parser: argparse.ArgumentParser, seeds: int) -> None:
    """Add the options that every study has."""
    parser.add_argument("--seeds", type=int, default=seeds or None)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows whose name has it")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one thread each")
    parser.add_argument("--device", metavar="ON", help="where a new run computes: cpu, cuda, cuda:1, mps, auto")
    parser.add_argument("--runs", type=Path, help="folder of the runs; default: in runs/")
    parser.add_argument("--quick", action="store_true", help="small, honest runs that show that everything works")
    parser.add_argument(
        "--list", action="store_true", help="show every run: state, epochs, seconds an epoch, what is left; run nothing"
    )
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")


def finish(
    study: Study, chosen: argparse.Namespace, title: str, folder: Path, split: str = "test"
) -> dict[str, dict[str, float]]:
    """List or run a study, write runs.csv, record the table of a split if that is asked for, and return it.

    Raises:
        SystemExit: after a listing; or some runs did not finish, once the table of the others is printed and written.
    """
    if chosen.list:
        print("\n".join(study.listing()))
        sys.exit(0)
    study.run()
    write_csv(folder / "runs.csv", study.jobs)
    found = study.table(split)
    print("\n".join(markdown(found)))
    if unfinished := [job.folder.name for job in study.unfinished()]:
        sys.exit(f"not in the table, as they did not finish: {', '.join(unfinished)}")
    if chosen.record:
        record(title, markdown(found))
    return found


def _asked_for(job: Job) -> bool:
    return job.asked.is_file() and read_text(job.asked) == dump(job.settings)
