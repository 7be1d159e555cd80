"""A run that a script made goes on by `hil resume`, where a file could have made it; any other says why it needs its script."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from killing.same import differences as unlike

import hil
from hil import cli, toml
from hil.commands import train_net
from hil.data.dataset import subset
from hil.learners.adfa import ADFA
from sim_devices.mach_zehnder import MachZehnder

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "benches" / "mzm_awg_scope.toml"
SCRIPT = ROOT / "examples" / "08_resume_without_the_script.py"
QUICK: dict[str, Any] = {"epochs": 1, "batch": 64, "lr": 3e-3, "show": False, "report": False}


def config_of(run: hil.Run) -> dict[str, Any]:
    return toml.loads((run.folder / "config.toml").read_text(encoding="utf-8"))


def test_a_killed_script_is_continued_by_hil_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 20
    text = SCRIPT.read_text(encoding="utf-8")
    there = ("Path(__file__).resolve().parents[1]", f"Path({str(ROOT)!r})")
    for whole, less in (there, ("60, 10", "8, 10"), ("epochs=4", "epochs=2")):
        assert text.count(whole) == 1
        text = text.replace(whole, less)
    quick = tmp_path / SCRIPT.name  # tests/test_face.py runs the example as it is
    quick.write_text(text, encoding="utf-8")
    folder, journal = tmp_path / "runs" / "08_bench", tmp_path / "runs" / "08_bench" / "journal.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    with subprocess.Popen(
        [sys.executable, "-P", str(quick)], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    ) as script:
        until = time.monotonic() + 100
        while not (journal.exists() and '"epoch"' in journal.read_text(encoding="utf-8")) and time.monotonic() < until:
            time.sleep(0.02)
        script.send_signal(signal.SIGKILL)
        assert script.wait(100) == -signal.SIGKILL
    assert hil.Run(folder).test_accuracy is None
    monkeypatch.chdir(tmp_path)
    assert cli.run(["resume", str(folder)]) == 0
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    monkeypatch.setattr(sys, "argv", [str(quick)])
    runpy.run_path(str(quick))  # the same without being killed
    assert (folder / "logs" / "metrics.csv").read_text(encoding="utf-8").count("validation/accuracy") == 2
    assert list(unlike(tmp_path / "else" / "runs" / "08_bench", folder)) == []


def test_the_script_may_take_over_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = subset(hil.load("digits"), 256)

    def trained(epochs: int, name: str) -> hil.Run:
        with hil.open(BENCH) as bench:
            net = hil.dense([64, 12, 10], bench, gain=1.5, overflow="fold", period=7.04)
            return hil.train(net, "adfa", data, **{**QUICK, "epochs": epochs}, run=tmp_path / name)

    run = trained(1, "run")
    assert config_of(run)["data"].items() >= {"use": "digits", "train_examples": 256}.items()
    assert config_of(run)["script"]
    origins = json.loads(
        (run.folder / "origins.json").read_text(encoding="utf-8")
    )  # where modules that the bench file names are found again
    assert origins["bench.toml"] == [str(BENCH.parent), str(Path.cwd())]
    assert cli.run(["resume", str(run.folder), "--set", "train.epochs=2"]) == 0
    assert run.records[-1]["epoch"] == 2
    capfd.readouterr()
    run = trained(3, "run")
    assert run.records[-1]["epoch"] == 3
    assert run.summary["resources"].keys() == {"awg", "scope"}


def moved_weights(net: hil.Network) -> hil.Network:
    with torch.no_grad():
        net.stack[0].synapse.weight.add_(0.01)  # type: ignore[union-attr, operator]
    return net


DIGITS = subset(hil.load("digits"), 128)
CASES: dict[str, tuple[Callable[[Any], tuple[Any, ...]], dict[str, Any], str]] = {
    "weights": (lambda dense: (moved_weights(dense()), "adfa", DIGITS), {}, "its first weights are not those of"),
    "seeds": (lambda dense: (dense(seed=1), "adfa", DIGITS), {}, "its first weights are not those of"),
    "twin": (lambda dense: (dense(), "dfa", DIGITS), {"twin": MachZehnder()}, "a twin was given"),
    "learner": (lambda dense: (dense(), ADFA, DIGITS), {}, "its learner was given as an object or a class"),
    "data": (
        lambda dense: (dense(), "adfa", dataclasses.replace(DIGITS, test=DIGITS.validation)),
        {},
        "its data set is none of those",
    ),
    "bias": (
        lambda dense: (
            hil.Network([*dense().stack[:-1], hil.Layer(torch.nn.Sequential(torch.nn.Linear(12, 10)))]),
            "adfa",
            DIGITS,
        ),
        {},
        "not one of hil.dense",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Any:
    with hil.open(BENCH) as opened:
        yield opened


@pytest.fixture
def as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What hil.train would write down of a run; nothing is trained."""
    seen: list[Any] = []

    def begun(folder: Any, made: Any, how: Any) -> Iterator[Any]:
        seen.append(made.experiment)
        return iter(())

    monkeypatch.setattr(train_net, "_begin", begun)

    def experiment(net: Any, learner: Any, data: Any, **more: Any) -> Any:
        hil.train(net, learner, data, **QUICK, **more, run=tmp_path / str(len(seen)))
        return seen[-1]

    return experiment


@pytest.mark.parametrize("case", CASES)
def test_what_no_file_could_make_says_why(case: str, bench: Any, as_a_file: Callable[..., Any]) -> None:
    make, more, why = CASES[case]

    def dense(seed: int = 0) -> hil.Network:
        return hil.dense([64, 12, 10], bench, gain=1.5, overflow="fold", period=7.04, decode=hil.Decode(0.18, 0.18), seed=seed)

    assert as_a_file(dense(), "adfa", DIGITS).script
    assert why in as_a_file(*make(dense), **more).because


def test_resume_of_a_run_that_needs_its_script_says_which_and_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    net = hil.dense([64, 12, 10], MachZehnder(), overflow="clip")
    with hil.points(net, "adfa", DIGITS, **QUICK, run=tmp_path / "run") as points:
        next(points)
    assert cli.run(["resume", str(tmp_path / "run")]) == 2
    told = capfd.readouterr().err
    assert "its device is not one bench of hil.open" in told
    assert "run the script again" in told
