"""A study: its runs are made once, gone on with where they were stopped, and refused if other settings are asked for."""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT
from small import toml

from hil.cli import run as hil
from hil.errors import RunError


class Here:
    """A process of a study that is none: the command runs where it is started.

    Stands in for subprocess.Popen; `started` has the arguments of each.
    """

    started: list[list[str]]
    stop = False

    def __init__(self, words: list[str], **_: Any) -> None:
        assert words[1:3] == ["-m", "hil"]
        self.started.append(words[3:])
        self.pid = 0
        self._code = -signal.SIGKILL if self.stop else hil(words[3:])

    def wait(self) -> int:
        return self._code


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import jobs

    monkeypatch.setattr(jobs.subprocess, "Popen", Here)
    monkeypatch.setattr(Here, "started", [], raising=False)
    yield jobs
    for name in ("jobs", "recording"):
        sys.modules.pop(name, None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "e.toml"
    path.write_text(toml(64, "64, 4, 10", train="epochs = 2\nbatch = 32\nthreads = 1"), encoding="utf-8")
    return path


def study(jobs: Any, file: Path, *sets: str) -> Any:
    runs = file.parent / "runs"
    return jobs.Study([jobs.Job("small", seed, file, sets, runs / f"small-{seed}", {"node": "mzm"}) for seed in (0, 1)])


def test_what_is_left_is_made_and_what_is_done_is_not_made_again(
    jobs: Any, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Here.stop = True
    first = study(jobs, file)
    first.run()
    assert "small-0: exit -9, see" in capsys.readouterr().out
    assert first.listing()[0].split()[:2] == ["small-0", "waiting"]
    assert first.listing()[-1] == "0 of 2 runs done; left: not known before the first epoch"
    Here.stop = False
    study(jobs, file).run()
    begun, Here.started = Here.started, []
    again = study(jobs, file)
    again.run()
    assert not Here.started
    assert [words[0] for words in begun] == ["train"] * 4
    assert again.listing()[-1] == "2 of 2 runs done; left: nothing"
    row = again.table()["small"]
    assert row["seeds"] == 2
    assert row["worst"] <= row["mean"]
    jobs.write_csv(file.parent / "runs.csv", again.jobs)
    lines = list(csv.DictReader((file.parent / "runs.csv").open(encoding="utf-8")))
    assert [(line["row"], line["seed"], line["node"]) for line in lines] == [("small", "0", "mzm"), ("small", "1", "mzm")]
    assert float(lines[0]["test_accuracy"]) == again.jobs[0].summary()["test_accuracy"]


def test_a_run_that_was_stopped_goes_on(jobs: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hil.learners.adfa import ADFA

    inner, steps = ADFA.step, []

    def step(*arguments: Any) -> object:
        steps.append(1)
        if len(steps) == 3:
            raise RunError("stopped here", where="a test", outputs="none", todo="go on")
        return inner(*arguments)

    monkeypatch.setattr(ADFA, "step", step)
    study(jobs, file).run()
    assert study(jobs, file).listing()[-1].startswith("1 of 2 runs done; left: about ")
    Here.started = []
    study(jobs, file).run()
    assert [words[0] for words in Here.started] == ["resume"]
    assert not study(jobs, file).unfinished()


def test_other_settings_are_refused(jobs: Any, file: Path) -> None:
    study(jobs, file).run()
    with pytest.raises(SystemExit, match="with other settings than are asked for now, in 2 of 2 folders"):
        study(jobs, file, "train.epochs=3")
    with pytest.raises(SystemExit, match="epochs"):
        study(jobs, file, "train.epochs=none")


def test_only_rows_that_have_a_text(jobs: Any, file: Path) -> None:
    made = [jobs.Job(row, 0, file, (), file.parent / row) for row in ("mzm, sine", "snn, sine", "mzm, random 1")]
    chosen = argparse.Namespace(only="mzm", jobs=1, device=None)
    assert [job.row for job in jobs.Study.of(made, chosen).jobs] == ["mzm, sine", "mzm, random 1"]
    chosen.only = "slm"
    with pytest.raises(SystemExit, match="--only 'slm': no row has it; there are mzm, sine; snn, sine; mzm, random 1"):
        jobs.Study.of(made, chosen)


def test_a_score_is_that_of_the_metric(jobs: Any, file: Path) -> None:
    made = study(jobs, file)
    made.jobs[0].folder.mkdir(parents=True)
    said = '{"status": "done", "metric": "nrmse", "test_nrmse": 0.25}'
    (made.jobs[0].folder / "summary.json").write_text(said, encoding="utf-8")
    assert made.table() == {"small": {"mean": 0.25, "std": 0.0, "worst": 0.25, "seeds": 1}}
    assert "test 0.2500" in made.listing()[0]


def test_the_summary_of_an_unfinished_run_is_empty(jobs: Any, file: Path) -> None:
    job = study(jobs, file).jobs[0]
    assert job.summary() == {}
    job.folder.mkdir(parents=True)
    for text in ('{"status": "failed"}', "[]", json.dumps({"status": "done", "test_accuracy": 0.5})):
        (job.folder / "summary.json").write_text(text, encoding="utf-8")
    assert job.summary()["test_accuracy"] == 0.5
