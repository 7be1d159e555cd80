"""Every bench file trains: does each node carry its experiment to its floor, over its own wires, within five minutes?

    python benchmarks/benches.py [--quick] [--only SUBSTRING] [--seeds 0 1 2] [--into FOLDER]

One experiment for each file of benches/, as `hil train` runs it, one process after the other, one thread each. A floor is 90 %
of the test examples, for classes, and a highest NRMSE for sequences; it was written down before the runs. A run that is in
FOLDER is read, not made again. --quick makes one epoch of three benches, and asks for no floor. The last lines are a table and
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
LONGEST_S = 300.0


class Failed(Exception):
    """A run did not come to its end."""


@dataclass(frozen=True)
class Row:
    """An experiment through a bench.

    Args:
        bench: name of its file, without suffix.
        experiment: name of its file, without suffix.
        floor: worst test score that is allowed: least accuracy, or largest NRMSE.
    """

    bench: str
    experiment: str
    floor: float = 0.9


ROWS = (
    Row("mzm_awg_scope", "demo"),
    Row("siglent_rigol", "digits_adfa_siglent_rigol"),
    Row("afg_mso", "digits_adfa_afg_mso"),
    Row("red_pitaya", "digits_adfa_red_pitaya"),
    Row("mzm_bias_laser", "digits_adfa_bias_laser"),
    Row("iq_bias_laser", "digits_adfa_iq"),
    Row("delay_loop_awg_scope", "narma10_bench", floor=0.45),
    Row("deep_loop_awg_scope", "digits_deep_reservoir_bench"),
    Row("mesh_levels", "xor_mesh_levels"),
    Row("mesh_heaters", "xor_mesh_heaters"),
    Row("mzi_mesh", "digits_mesh_node_perturbation"),
    Row("keithley_pair", "xor_keithley_pair"),
    Row("heaters_pm100d", "xor_heaters_pm100d"),
    Row("dac_board", "xor_dac_board"),
    Row("dopant_network", "dopant_xor_bench"),
    Row("crossbar", "crossbar_bench"),
    Row("slm_camera_wired", "digits_adfa_optical"),
    Row("slm_camera", "digits_camera_phyll"),
    Row("spiking_board", "digits_board_adfa_snn"),
    Row("integrating_board", "digits_board_spide"),
)
QUICK = ("dac_board", "mzi_mesh", "slm_camera")


def trained(row: Row, seed: int, folder: Path, extra: tuple[str, ...]) -> dict[str, Any]:
    """Train, unless the run is there; return its summary. Raises: Failed."""
    path = folder / f"{row.bench}-{seed}"
    if not (path / "summary.json").exists():
        command = [sys.executable, "-m", "hil", "train", f"experiments/{row.experiment}.toml", "--run", str(path)]
        for setting in (f"seed={seed}", *extra):
            command += ["--set", setting]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
        done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{row.bench}, seed {seed}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr}")
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    learner = tomllib.loads((path / "config.toml").read_text())["learner"]["use"]
    return found | {"test": found[f"test_{found['metric']}"], "learner": learner}


def main() -> int:
    """Train through every bench; returns 1 if one stayed below its floor, or took too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="benches whose name has this in it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--into", type=Path, help="folder of the runs; left out: one that is removed")
    asked = parser.parse_args()
    files, named = {path.stem for path in (HERE / "benches").glob("*.toml")}, {row.bench for row in ROWS}
    if files != named:
        raise SystemExit(f"benches without a row, or rows without a bench: {', '.join(sorted(files ^ named))}")
    with tempfile.TemporaryDirectory() as removed:
        folder = asked.into or Path(removed)
        folder.mkdir(parents=True, exist_ok=True)
        return table(asked.only, asked.seeds, folder.resolve(), asked.quick)


def table(only: str, seeds: list[int], folder: Path, quick: bool) -> int:
    """Print a line for each bench, and what all of them come to."""
    lines: list[str] = []
    missed: list[str] = []
    for row in ROWS:
        if only not in row.bench or (quick and row.bench not in QUICK):
            continue
        try:
            line, good = judged(row, [trained(row, seed, folder, ("train.epochs=1",) if quick else ()) for seed in seeds])
        except Failed as failure:
            print(failure, file=sys.stderr, flush=True)
            line, good = f"| {row.bench} | {row.experiment} | failed | | | | | |", False
        print(f"{row.bench:22}{line}", file=sys.stderr, flush=True)
        lines.append(line)
        missed += [] if good or (quick and "failed" not in line) else [row.bench]
    print("| bench | experiment, learner | test | mean | worst | floor | node evaluations | wall time, s |")
    print("|---|---|---|---|---|---|---|---|", *lines, sep="\n")
    print(json.dumps({"benches": len(lines), "missed": missed}))
    return bool(missed)


def judged(row: Row, found: list[dict[str, Any]]) -> tuple[str, bool]:
    """The line of a bench in the table, and whether every seed reached the floor in time."""
    scores, seconds, less = [one["test"] for one in found], [one["wall_s"] for one in found], found[0]["better"] == "lower"
    worst, said = max(scores) if less else min(scores), "{:.3f}".format if less else "{:.1%}".format
    cells = (
        row.bench, f"{row.experiment}, {found[0]['learner']}", ", ".join(map(said, scores)), said(statistics.fmean(scores)),
        said(worst), f"{'NRMSE ' if less else ''}{said(row.floor)}", f"{found[0]['device_passes']:,}",
        ", ".join(f"{second:.1f}" for second in seconds),
    )  # fmt: skip
    good = (worst <= row.floor if less else worst >= row.floor) and max(seconds) <= LONGEST_S
    return f"| {' | '.join(cells)} |", good


if __name__ == "__main__":
    sys.exit(main())
