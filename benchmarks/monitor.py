"""Measure what the monitor costs: to list many run folders, to open its page about them, and to watch a training.

    python benchmarks/monitor.py [--quick] [--runs N]       the list: cold, and again when nothing or one run has changed
    python benchmarks/monitor.py --page [--runs N]          from the request to the table drawn, in Chromium
    python benchmarks/monitor.py --training [--pairs N]     trainings with and without a page that watches them, in turns

Makes run folders as hil train leaves them (journals of some thousand steps, forty epochs, checkpoints), and reads them by
hil/run/index.py. Times of the list are processor times of this process, s. --quick: 1,000 runs, a few seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hil.run.folder import RunFolder
from hil.run.index import Index
from hil.run.journal import Journal

if TYPE_CHECKING:
    from browsing import Visitor

RUNS, STEPS, PER_EPOCH, BEGIN = 1000, 1800, 45, 1795600000.0
COLD_S, WARM_S = 2.0, 0.5  # what it may take
PAGE_S, COST = 2.0, 0.01  # to draw the table of RUNS runs; share of the steps that watching may cost
EPOCHS, TRAINER_CPU = 40, 0
CONFIG = Path(__file__).resolve().parents[1] / "experiments" / "demo.toml"


def journal_of(path: Path, number: int) -> bytes:
    """The journal of a run; made by the class that writes them."""
    now = [0]
    told = Journal(
        path, now=lambda: datetime.fromtimestamp(BEGIN + number + 0.1 * now[0], UTC).isoformat(timespec="milliseconds")
    )
    told.note(
        "start", provenance="twin", node={"bench": "mzm"}, resources={"awg": "SN 1"}, epochs=40, batches_per_epoch=PER_EPOCH
    )
    for step in range(1, STEPS + 1):
        now[0], epoch = step, (step - 1) // PER_EPOCH + 1
        told.commit(step, epoch, (step - 1) % PER_EPOCH + 1, 2.3 / step, 7000 * step, 0.07 * step)
        if step % PER_EPOCH == 0:
            told.note("epoch", epoch=epoch, step=step, loss=0.3, accuracy=0.9, best=True)
            told.note("checkpoint", step=step, epoch=epoch, batch=0, file=f"step-{step:08}.json")
    if number % 4:
        told.note("end", step=STEPS, test_accuracy=0.91)
        told.note("safe", outputs="off, read back")
    told.close()
    return path.read_bytes()


def make(root: Path, count: int) -> None:
    """Make so many run folders; every fourth of a process that was killed."""
    kinds = [journal_of(root / f"journal-{kind}", kind) for kind in range(4)]
    config = CONFIG.read_text(encoding="utf-8")
    metrics = "".join(
        json.dumps({"epoch": n, "step": 45 * n, "split": split, "loss": 0.3, "accuracy": 0.9, "wall_s": 0.4}) + "\n"
        for n in range(1, 41) for split in ("train", "validation")
    )  # fmt: skip
    summary = {
        "status": "done", "name": "demo", "provenance": "twin", "test_accuracy": 0.91, "metric": "accuracy", "better": "higher",
        "validation_accuracy": 0.92, "seed": 0, "wall_s": 180.0, "device_s": 126.0, "device_passes": 12_600_000,
        "outputs": "off, read back", "versions": {"hil": "0.1.0"},
    }  # fmt: skip
    for number in range(count):
        folder = RunFolder.create(root / f"demo-{number:05}")
        (folder.path / "config.toml").write_text(config, encoding="utf-8")
        (folder.path / "journal.jsonl").write_bytes(kinds[number % 4])
        (folder.path / "metrics.jsonl").write_text(metrics, encoding="utf-8")
        (folder.path / "notes.toml").write_text('tags = ["good"]\nnote = "x"\n', encoding="utf-8")
        (folder.path / "run.lock").write_text("", encoding="utf-8")
        for step in (1710, 1755, 1800):
            (folder.checkpoints / f"step-{step:08}.json").write_text("{}", encoding="utf-8")
        if number % 4:
            (folder.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def listing(root: Path, count: int) -> bool:
    """Measure the list; True: it takes no longer than it may."""
    listed, took = Index([root]), []
    for what in ("cold", "warm", "one changed"):
        if what == "one changed":
            (root / "demo-00001" / "notes.toml").write_text('tags = ["bad"]\n', encoding="utf-8")
        begin = time.process_time()
        found = listed.entries()
        took.append(time.process_time() - begin)
        print(f"{len(found):,} runs, {what:<12} {took[-1]:.2f} s")
    assert len(found) == count
    assert sorted({entry.state for entry in found}) == ["dead", "done"]
    assert [entry.tags for entry in found].count(("bad",)) == 1
    scale = max(1.0, count / RUNS)
    return took[0] <= COLD_S * scale and max(took[1:]) <= WARM_S * scale


def page(root: Path, count: int) -> bool:
    """Measure the page of all runs; True: its table is drawn in time."""
    from browsing import chromium, served, visitor

    took = []
    with served(root.parent, str(root)) as place, chromium() as browser, browser.new_context() as context:
        begin = time.perf_counter()
        visit = visitor(context, place)
        visit.open(place.link)  # just after the server has started: the folders are read now
        for what in ("first", "again", "again"):
            if what == "again":
                begin = time.perf_counter()
                visit.page.goto(place.base + "/", wait_until="commit")
            visit.page.wait_for_selector("td.of-name a")
            took.append(time.perf_counter() - begin)
            print(f"{count:,} runs, page {what:<6} {took[-1]:.2f} s from the request to the table drawn")
    return max(took[1:]) <= PAGE_S


def trained(root: Path, name: str, seen: Visitor | None) -> tuple[float, float]:
    """Steps per s of processor time, and per s, of a training that the page of a visitor watches, or nobody."""
    from hil.monitor.watching import key

    path = root / name
    run = subprocess.Popen(
        ["taskset", "--cpu-list", str(TRAINER_CPU), sys.executable, "-m", "hil", "train",
         str(CONFIG.with_name("digits_adfa_twin.toml")), "--run", str(path), "--set", f"train.epochs={EPOCHS}"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(CONFIG.parents[1]), "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    if seen is not None:
        while not (path / "journal.jsonl").exists():
            time.sleep(0.1)
        seen.open(f"/view/{key(path)}")
    _, code, used = os.wait4(run.pid, 0)
    run.returncode = code
    assert code == 0
    if seen is not None:
        seen.page.goto("about:blank")
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return summary["steps"] / (used.ru_utime + used.ru_stime), summary["steps"] / summary["wall_s"]


def training(root: Path, pairs: int) -> bool:
    """Measure what a watched training loses; True: no more than it may.

    Server and browser are there in both cases. The trainer has a processor to itself: a browser that computes its picture on
    the trainer's own would take what any other program takes.
    """
    from browsing import chromium, entered, served, visitor

    found = []
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {TRAINER_CPU})  # of what is started from here too
    with served(root, str(root)) as place, chromium() as browser, browser.new_context() as context:
        visit = visitor(entered(context, place.link), place)
        server, begun = psutil.Process(place.process.pid), time.perf_counter()
        before = sum(server.cpu_times()[:2])
        visit.page.goto("about:blank")
        for number in range(pairs):
            order = (True, False) if number % 2 else (False, True)
            rates = {seen: trained(root, f"{number}-{'seen' if seen else 'alone'}", visit if seen else None) for seen in order}
            found.append([rates[True][k] / rates[False][k] - 1 for k in (0, 1)])
            print(f"pair {number + 1}: {found[-1][0]:+.1%} steps per s of processor time, {found[-1][1]:+.1%} steps per s")
        share = (sum(server.cpu_times()[:2]) - before) / (time.perf_counter() - begun)
    processor, wall = (statistics.median(pair[k] for pair in found) for k in (0, 1))
    print(f"median of {pairs} pairs: {processor:+.1%} steps per s of processor time, {wall:+.1%} steps per s; "
          f"the server takes {share:.1%} of a processor")  # fmt: skip
    return min(processor, wall) >= -COST


def main() -> int:
    """Return 1 if it takes too long."""
    if "--training" in sys.argv:
        pairs = int(sys.argv[sys.argv.index("--pairs") + 1]) if "--pairs" in sys.argv else 5
        with tempfile.TemporaryDirectory() as folder:
            return 0 if training(Path(folder), pairs) else 1
    few = "--quick" in sys.argv or "--page" in sys.argv
    count = int(sys.argv[sys.argv.index("--runs") + 1]) if "--runs" in sys.argv else RUNS if few else 5 * RUNS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        root.mkdir()
        make(root, count)
        return 0 if (page if "--page" in sys.argv else listing)(root, count) else 1


if __name__ == "__main__":
    raise SystemExit(main())
