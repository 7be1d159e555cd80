"""Runs of a study (benchmarks/jobs.py): made, gone on with after a stop, listed, and refused under other settings."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from functions import inline
from jobs import ROOT, Job, Study, correlation, markdown, said, standing, write_csv

from hil import toml
from hil.feedback.feedback import Fourier
from hil.feedback.functions import to_table
from hil.run.journal import Journal, committed

DIGITS = ROOT / "experiments" / "digits_adfa_twin.toml"
SHORT = ("train.epochs=2", "data.train_examples=64", "network.widths=[64, 8, 10]")
STUDY = """
import sys
from pathlib import Path
from jobs import Job, Study
Study([Job("a", 0, Path(sys.argv[1]), ("train.epochs=400", "train.checkpoint_every=5"), Path(sys.argv[2]))]).run()
"""


def job(folder: Path, seed: int = 0, sets: tuple[str, ...] = SHORT) -> Job:
    return Job("aDFA", seed, DIGITS, sets, folder / f"adfa-{seed}", {"rule": "aDFA"})


def test_a_study_is_made_once_listed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [job(tmp_path), job(tmp_path, 1)]
    assert Study(jobs).listing()[-1] == "0 of 2 runs done; left: not known before the first epoch"
    Study(jobs[:1]).run()
    one = standing(jobs[0])
    assert (one.state, one.done, one.epochs) == ("done", 2, 2) and one.epoch_s and one.epoch_s > 0
    assert "waiting" in Study(jobs).listing()[1] and "about" in Study(jobs).listing()[-1]
    Study(jobs, processes=2).run()
    made = [found["wall_s"] for found in (one.summary() for one in jobs)]
    Study(jobs).run()
    assert [found["wall_s"] for found in (one.summary() for one in jobs)] == made, "finished runs are not made again"
    row = Study(jobs).table()["aDFA"]
    scores = [one.summary()["test_accuracy"] for one in jobs]
    assert row["seeds"] == 2 and row["worst"] == min(scores) and row["mean"] == pytest.approx(sum(scores) / 2)
    write_csv(tmp_path / "runs.csv", jobs)
    lines = list(csv.DictReader((tmp_path / "runs.csv").open(encoding="utf-8")))
    assert [float(line["test_accuracy"]) for line in lines] == scores
    assert float(lines[0]["correlation"]) == correlation(jobs[0].summary())
    assert markdown(Study(jobs).table())[2].startswith(f"| aDFA | {row['mean']:.4f} |")
    assert Study(jobs).listing()[-1].endswith("left: nothing")


def test_a_stopped_study_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", STUDY, str(DIGITS), str(folder)]
    process = subprocess.Popen(command, cwd=ROOT / "benchmarks", stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(folder.glob("checkpoints/step-*5.json")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and "the same command goes on" in told
    sets = ("train.epochs=400", "train.checkpoint_every=5")
    left = Job("a", 0, DIGITS, sets, folder)
    steps = len(committed(Journal.read(folder / "journal.jsonl")))
    assert standing(left).state == "interrupted" and 0 < standing(left).done < 400
    assert left.command() == ["resume", str(folder)] and steps > 0


def test_other_settings_are_refused(tmp_path: Path) -> None:
    Study([job(tmp_path)]).run()
    with pytest.raises(SystemExit, match="other settings"):
        Study([job(tmp_path, sets=(*SHORT, "optimizer.lr=0.1"))])
    with pytest.raises(SystemExit, match="optimizer"):
        Study([replace(job(tmp_path), sets=(*SHORT, "optimizer.rate=0.1"))])


def test_a_g_of_zero_trains_the_last_layer_alone(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    sets = (*SHORT, "network.widths=[784, 12, 10]", 'data.use="digits"', "learner.feedback={g={family=\"constant\",value=0.0}}")
    snn = replace(job(tmp_path), experiment=ROOT / "experiments" / "digits_board_adfa_snn.toml")
    chip = ("device={chip=\"lif\",leak=0.5,v_th=1.0}", "network.widths=[64, 12, 10]", "train.checkpoint_every=1")
    Study([replace(snn, sets=(*(one for one in sets if "784" not in one and "[64, 8" not in one), *chip))]).run()
    first, *_, last = sorted((snn.folder / "checkpoints").glob("step-*.safetensors"))
    begin, end = load_file(first), load_file(last)
    moved = {name for name in begin if name.startswith("net") and not torch.equal(begin[name], end[name])}
    assert moved and all("1" in name for name in moved), moved


def test_settings_of_the_command_line_are_toml() -> None:
    table = {"g": to_table(Fourier((0.5, -1e-7), (0.25, 1.0), 2.0))}
    assert toml.loads(f"value = {inline(table)}")["value"] == table
    assert (said(90), said(600), said(9000)) == ("90 s", "10 min", "2.5 h")
