"""Every bench file trains: does each node carry its experiment to its floor, over its own wires, within five minutes?

    python benchmarks/benches.py [--seeds N] [--first N] [--only TEXT] [--runs FOLDER] [--list] [--quick] [--record]

One experiment for each file of benches/, as `hil train` runs it, one process after the other, one thread each
(benchmarks/jobs.py). A floor is 90 % of the test examples, for classes, and a highest NRMSE for sequences; it was written down
before the runs. --quick makes one epoch of three benches, and asks for no floor. The last lines are a table and a JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from jobs import ROOT, RUNS, Job, Study, add_options, of
from recording import record

LONGEST_S = 300.0
HEAD = (
    "| bench | experiment, learner | test | mean | worst | floor | node evaluations | wall time, s |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Row:
    """An experiment through a bench.

    Args:
        bench: name of its file, without suffix.
        experiment: name of its file, without suffix.
        floor: worst test score that is allowed: least accuracy, or largest NRMSE.
        needs: a package that its virtual side needs besides, and the extra that brings it.
    """

    bench: str
    experiment: str
    floor: float = 0.9
    needs: tuple[str, str] | None = None


ROWS = (
    Row("mzm_awg_scope", "demo"),
    Row("siglent_rigol", "digits_adfa_siglent_rigol"),
    Row("afg_mso", "digits_adfa_afg_mso"),
    Row("red_pitaya", "digits_adfa_red_pitaya"),
    Row("picoscope", "digits_adfa_picoscope", needs=("picosdk", "picosdk")),
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
    Row("dopant_network", "dopant_xor_bench_cma"),
    Row("pxi_dopant_network", "dopant_xor_pxi", needs=("nidaqmx", "nidaqmx")),
    Row("crossbar", "crossbar_bench_cma"),
    Row("microring_bank", "xor_microring_bench_cma"),
    Row("slm_camera_wired", "digits_adfa_optical"),
    Row("phase_mask_camera", "digits_phase_mask_bench"),
    Row("slm_camera", "digits_camera_phyll"),
    Row("spiking_board", "digits_board_adfa_snn"),
    Row("integrating_board", "digits_board_spide"),
)
QUICK = ("dac_board", "mzi_mesh", "slm_camera")


def main() -> int:
    """Train through every bench; returns 1 if one stayed below its floor, took too long, or did not come to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, seeds=1)
    chosen = parser.parse_args()
    files, named = {path.stem for path in (ROOT / "benches").glob("*.toml")}, {row.bench for row in ROWS}
    if files != named:
        sys.exit(f"benches without a row, or rows without a bench: {', '.join(sorted(files ^ named))}")
    folder = chosen.runs or RUNS / f"benches{'-quick' if chosen.quick else ''}"
    without = [row for row in ROWS if row.needs is not None and find_spec(row.needs[0]) is None]
    rows = [row for row in ROWS if row not in without and (not chosen.quick or row.bench in QUICK)]
    for row in without:
        assert row.needs is not None
        print(f'{row.bench} is left out: it needs {row.needs[0]}, pip install "hil[{row.needs[1]}]"')
    sets = ("train.epochs=1",) if chosen.quick else ()
    study = Study.of((
        Job(row.bench, seed, ROOT / "experiments" / f"{row.experiment}.toml", sets, folder / f"{row.bench}-{seed}")
        for row in rows for seed in range(chosen.first, chosen.first + chosen.seeds)
    ), chosen)  # fmt: skip
    if chosen.list:
        print("\n".join(study.listing()))
        return 0
    study.run()
    lines, missed = list(HEAD), [job.folder.name for job in study.unfinished()]
    for row in rows:
        if jobs := [job for job in study.jobs if job.row == row.bench and job.summary()]:
            line, good = judged(row, jobs)
            lines.append(line)
            missed += [] if good or chosen.quick else [row.bench]
    print("\n".join(lines))
    if chosen.record:
        record("Every bench trains to its floor", lines)
    print(json.dumps({"benches": len(lines) - len(HEAD), "missed": missed, "left_out": [row.bench for row in without]}))
    return bool(missed)


def judged(row: Row, jobs: Sequence[Job]) -> tuple[str, bool]:
    """Return the line of a bench in the table, and whether every seed reached the floor in time."""
    found: list[dict[str, Any]] = [job.summary() for job in jobs]
    scores, seconds = [one[of("test", one)] for one in found], [one["wall_s"] for one in found]
    less = found[0]["better"] == "lower"
    worst, said = max(scores) if less else min(scores), "{:.3f}".format if less else "{:.1%}".format
    cells = (
        row.bench, f"{row.experiment}, {jobs[0].settings.learner.use}", ", ".join(map(said, scores)),
        said(statistics.fmean(scores)), said(worst), f"{'NRMSE ' if less else ''}{said(row.floor)}",
        f"{found[0]['device_passes']:,}", ", ".join(f"{second:.1f}" for second in seconds),
    )  # fmt: skip
    good = (worst <= row.floor if less else worst >= row.floor) and max(seconds) <= LONGEST_S
    return f"| {' | '.join(cells)} |", good


if __name__ == "__main__":
    sys.exit(main())
