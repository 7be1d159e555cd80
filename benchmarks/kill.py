"""Kill `hil train` with SIGKILL at random moments, see its outputs go off, resume it, and compare with a run never killed.

    identical            kills of runs that ended with the weights, metrics and scores of the run never killed, bit for bit
    outputs_off_s_worst  the longest time from a SIGKILL to the last "off" that the simulated instruments logged; 0 if nothing
                         was on; null if something stayed on

Through the virtual waveform bench, which outlives the trainer by [virtual] linger_s and logs to log_path whenever an output is
switched: {"time_s": since 1970, "box": name, "channel": number, "on": bool}. Each run is killed several times before it ends.

    python benchmarks/kill.py --times 100            the last line is JSON
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from killing import grid, searches
from killing.same import differences
from killing.switches import until_off

from hil.run import resume

ROOT = Path(__file__).resolve().parent.parent
LINGER_S = 30.0
KILLS_PER_RUN = 5
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
epochs = 6
batch = 16
threads = 1
checkpoint_every_s = 0.5
"""


PROGRAMMED = """
seed = 1
[data]
use = "dopant_network:xor"
count = 80
[network]
widths = [2, 2, 2]
answers = 1
[device]
bench = "bench.toml"
[encode]
gain = "400 mV"
offset = "-300 mV"
overflow = "clip"
[decode]
zero = "0 A"
scale = "10 nA"
[params]
start = "uniform"
lr = 0.05
[learner]
use = "spsa"
[train]
epochs = 10
batch = 8
threads = 1
checkpoint_every_s = 0.5
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=100, help="how many kills")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; by default others every time")
    parser.add_argument("--quick", action="store_true", help="three kills")
    parser.add_argument("--programmed", action="store_true", help="a bench whose control voltages are trained")
    parser.add_argument("--without-log", action="store_true", help="a bench that does not log its outputs: identity alone")
    parser.add_argument("--grid", action="store_true", help="not at random, but at every rung of the recovery ladder")
    parser.add_argument("--search", action="store_true", help="kill `hil search` in place of `hil train`; it needs no bench")
    parser.add_argument("--jobs", type=int, default=2, help="cells of the grid at a time")
    asked = parser.parse_args()
    if asked.grid:
        on_grid(asked.quick, asked.jobs)
        return
    draw = random.Random(asked.seed)
    left = 3 if asked.quick else asked.times
    with tempfile.TemporaryDirectory(prefix="hil-kill-") as folder:
        if asked.search:
            print(json.dumps(searches.measure(Path(folder), draw, left)))
            return
        trials = Trials(Path(folder), draw, not asked.without_log, asked.programmed)
        while left > 0:
            left -= trials.run(min(left, KILLS_PER_RUN))
    print(json.dumps(trials.result()))


def on_grid(quick: bool, jobs: int) -> None:
    """The table of all cells, or of a sample, and its sum as JSON."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, with nothing left behind
    with tempfile.TemporaryDirectory(prefix="hil-grid-") as folder:
        found = grid.measure(Path(folder), grid.QUICK if quick else grid.CELLS, jobs)
    print(grid.table(found))
    print(json.dumps(grid.result(found)))


class Trials:
    """Runs that are killed, and what became of them. logged: the bench writes down when its outputs are switched.

    programmed: the bench is that of experiments/dopant_xor_bench.toml, whose control voltages are trained.
    """

    def __init__(self, folder: Path, draw: random.Random, logged: bool, programmed: bool = False) -> None:
        self._folder, self._draw, self._logged = folder, draw, logged
        self._log = folder / "outputs.jsonl"
        bench = (ROOT / "benches" / f"{'dopant_network' if programmed else 'mzm_awg_scope'}.toml").read_text(encoding="utf-8")
        if logged:
            bench = bench.replace("[virtual]\n", f'[virtual]\nlinger_s = {LINGER_S}\nlog_path = "{self._log}"\n')
        (folder / "bench.toml").write_text(bench, encoding="utf-8")
        (folder / "e.toml").write_text(PROGRAMMED if programmed else EXPERIMENT, encoding="utf-8")
        if programmed:
            (folder / "dopant_network.py").write_bytes((ROOT / "experiments" / "dopant_network.py").read_bytes())
        self._tried = self._identical = self._count = 0
        self._off_s: list[float] = []
        begin = time.monotonic()
        self._ended(self._start(folder / "whole"), folder / "whole")
        self._lasts_s = time.monotonic() - begin
        print(f"the run that is not killed took {self._lasts_s:.1f} s", flush=True)

    def run(self, kills: int) -> int:
        """One run, killed up to `kills` times, then resumed to its end; returns how often it was killed."""
        self._count += 1
        run, killed = self._folder / f"run-{self._count}", 0
        while killed < kills and not _finished(run):
            since = self._log.stat().st_size if self._log.exists() else 0
            process = self._start(run)
            try:
                process.wait(self._draw.uniform(0.2, self._lasts_s))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                at = time.time()
                process.wait()
                killed += 1
                self._off_s.append(until_off(self._log, at, since, LINGER_S) if self._logged else 0.0)
        if not _finished(run):
            self._ended(self._start(run), run)
        wrong = list(differences(self._folder / "whole", run))
        self._tried += killed
        self._identical += killed if not wrong else 0
        print(f"run {self._count}: killed {killed} times; {'; '.join(wrong[:3]) or 'identical'}; {self._told()}", flush=True)
        return killed

    def result(self) -> dict[str, object]:
        worst = max(self._off_s, default=0.0)
        shown = worst if self._logged and worst != float("inf") else None
        return {"tried": self._tried, "identical": self._identical, "outputs_off_s_worst": shown}

    def _told(self) -> str:
        return f"outputs off within {max(self._off_s, default=0.0):.2f} s so far" if self._logged else "outputs not logged"

    def _start(self, run: Path) -> subprocess.Popen[str]:
        begun = (run / "config.toml").exists()
        command = ["resume", str(run)] if begun else ["train", str(self._folder / "e.toml"), "--run", str(run)]
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        said = (self._folder / "said").open("w", encoding="utf-8")
        with said:
            return subprocess.Popen(
                [sys.executable, "-m", "hil", *command], cwd=self._folder, stdout=said, stderr=said, text=True,
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def _ended(self, process: subprocess.Popen[str], run: Path) -> None:
        if process.wait() != 0:
            raise SystemExit(
                f"{run} ended with {process.returncode}:\n{(self._folder / 'said').read_text(encoding='utf-8')[-3000:]}"
            )


def _finished(run: Path) -> bool:
    if not (run / "config.toml").exists():
        return False
    found = resume.inspect(run)
    return found.status == "done" and not found.lacking


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
