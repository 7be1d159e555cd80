"""Test accuracy of every learner over seeds: {learner: {dataset: {mean, std, worst, seeds}}}, as fractions.

    python benchmarks/accuracy.py [LEARNER ...] [--datasets mnist ...] [--seeds N] [--first N] [--jobs N] [--device ON]
                                  [--quick] [--record]

Learners: adfa adfa_snn ff ffgaf spide saf_e saf_f bptt. Data sets: mnist fashion-mnist cifar10; HIL_DATA names the folder that
holds them. --device: where a new run computes, as [train] on: cuda, cuda:1, mps, auto; without it, as its file says. Runs live
in runs/accuracy/; a finished one is not repeated and an interrupted one is resumed, so the same command goes on where it was
stopped. Epoch and readout are chosen on the validation split; the test split is read once a run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recording import record

ROOT = Path(__file__).resolve().parent.parent
DATASETS = {"mnist": "mnist", "fashion-mnist": "fashion", "cifar10": "cifar10"}
LEARNERS = ("adfa", "adfa_snn", "ff", "ffgaf", "spide", "saf_e", "saf_f", "bptt")
QUICK = ("train.epochs=1", "data.train_examples=2000")


@dataclass(frozen=True)
class Job:
    """One run. quick: a small, honest one that shows that everything works."""

    learner: str
    dataset: str
    seed: int
    quick: bool
    on: str | None = None

    @property
    def folder(self) -> Path:
        return ROOT / "runs" / ("accuracy-quick" if self.quick else "accuracy") / f"{self.learner}-{self.dataset}-{self.seed}"

    @property
    def experiment(self) -> Path:
        """Its own file if there is one, or else the one for MNIST, whose images have the same size."""
        own = ROOT / "experiments" / f"{DATASETS[self.dataset]}_{self.learner}.toml"
        return own if own.exists() else ROOT / "experiments" / f"mnist_{self.learner}.toml"

    def command(self) -> list[str]:
        if (self.folder / "config.toml").exists():
            return ["resume", str(self.folder)]
        sets = [f"seed={self.seed}", f"data.use={self.dataset}", "train.threads=1"]
        sets += [f"train.on={self.on}"] if self.on else []
        sets += QUICK if self.quick else ()
        return ["train", str(self.experiment), "--run", str(self.folder), *(f"--set={text}" for text in sets)]

    def summary(self) -> dict[str, Any]:
        path = self.folder / "summary.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found if found.get("status") == "done" else {}


def run(job: Job) -> Job:
    """Train it, or go on with it, in a process of its own with one thread."""
    if not job.summary():
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        log = job.folder.parent / f"{job.folder.name}.log"
        with log.open("a", encoding="utf-8") as file:
            command = [sys.executable, "-m", "hil", *job.command()]
            done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            print(f"{job.folder.name}: exit {done.returncode}, see {log}", flush=True)
            return job
    found = job.summary()
    print(f"{job.folder.name}: test {found['test_accuracy']:.4f}, {found['wall_s']:.0f} s", flush=True)
    return job


def table(jobs: list[Job]) -> dict[str, dict[str, dict[str, float]]]:
    """Statistics of the finished runs."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for learner, dataset in dict.fromkeys((job.learner, job.dataset) for job in jobs):
        runs = [job.summary() for job in jobs if (job.learner, job.dataset) == (learner, dataset)]
        scores = [summary["test_accuracy"] for summary in runs if summary]
        if scores:
            std = statistics.stdev(scores) if len(scores) > 1 else 0.0
            row = {"mean": statistics.mean(scores), "std": std, "worst": min(scores), "seeds": len(scores)}
            found.setdefault(learner, {})[dataset] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learners", nargs="*", help="default: all that have an experiment file")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=["mnist"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, one thread each")
    parser.add_argument("--device", metavar="ON", help="where a new run computes: cpu, cuda, cuda:1, mps, auto")
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch of 2,000 examples")
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")
    chosen = parser.parse_args()
    seeds = 1 if chosen.quick else chosen.seeds
    learners = chosen.learners or LEARNERS
    jobs = [
        Job(name, data, seed, chosen.quick, chosen.device)
        for seed in range(chosen.first, chosen.first + seeds)
        for name in learners
        for data in chosen.datasets
    ]
    missing = sorted({job.experiment.name for job in jobs if not job.experiment.exists()})
    if missing:
        sys.exit(f"no experiment file for this: {', '.join(missing)}; learners: {', '.join(LEARNERS)}")
    with ThreadPoolExecutor(chosen.jobs) as pool:
        jobs = list(pool.map(run, jobs))
    found = table(jobs)
    if chosen.record:
        rows = [
            f"| {name} | {data} | {row['mean']:.4f} | {row['std']:.4f} | {row['worst']:.4f} | {row['seeds']:.0f} |"
            for name, sets in found.items()
            for data, row in sets.items()
        ]
        record("Accuracy", ["| learner | data | mean | std | worst | seeds |", "|---|---|---|---|---|---|", *rows])
    print(json.dumps(found))
    if unfinished := [job.folder.name for job in jobs if not job.summary()]:
        sys.exit(f"not in the table, as they did not finish: {', '.join(unfinished)}")


if __name__ == "__main__":
    main()
