"""hil.points: a training that a script steps through; leaving it is an interruption. And what a Run gives back."""

from __future__ import annotations

import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from killing.same import differences as unlike

import hil
from hil.data.dataset import subset
from hil.errors import RunError, Stopped
from hil.training.loop import Epoch
from sim_devices.mach_zehnder import MachZehnder

DIGITS = subset(hil.load("digits"), 256)
QUICK: dict[str, Any] = {"epochs": 2, "batch": 32, "lr": 5e-3, "show": False, "report": False}


def on_twin() -> hil.Network:
    return hil.dense([64, 12, 10], MachZehnder(), gain=1.0, overflow="clip")


def test_every_step_and_epoch_comes_and_the_run_is_that_of_train(tmp_path: Path) -> None:
    whole = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "whole")
    with hil.points(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "points") as points:
        seen = list(points)
    assert [point.step for point in seen] == [*range(1, 9), 8, *range(9, 17), 16]
    assert [isinstance(point, Epoch) for point in seen].count(True) == 2
    assert list(unlike(whole.folder, points.run.folder)) == []
    assert list(points) == []  # it is over
    assert signature(hil.points).parameters == signature(hil.train).parameters


def in_a_loop_that_fails(folder: Path) -> None:
    with hil.points(on_twin(), "adfa", DIGITS, **QUICK, run=folder) as points:
        for point in points:
            1 / (point.step - 5)


@pytest.mark.parametrize("way", ["context", "break", "error"])
def test_leaving_the_loop_interrupts_the_run_and_the_script_goes_on(way: str, tmp_path: Path) -> None:
    whole = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "whole")
    if way == "break":
        for point in hil.points(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "cut"):
            if point.step == 5:
                break
    elif way == "context":
        with hil.points(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "cut") as points:
            for _ in range(5):
                next(points)
    else:
        with pytest.raises(ZeroDivisionError):
            in_a_loop_that_fails(tmp_path / "cut")
    cut = hil.Run(tmp_path / "cut")
    assert cut.summary["status"] == "interrupted"
    assert cut.summary["steps"] == 5
    with hil.points(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "cut") as points:
        assert next(points).step == 6
        list(points)
    assert list(unlike(whole.folder, cut.folder)) == []


def test_a_fault_comes_out_of_the_loop_once_the_outputs_are_safe(tmp_path: Path) -> None:
    on = []

    def write(values: Any) -> None:
        on.append(True)

    def read() -> Any:
        if len(on) > 100:
            raise OSError("the cable came off")
        return torch.zeros(12)

    ports = hil.Port("dac", -1, 1, "V", 12), hil.Port("adc", -2, 2, "V", 12)
    net = hil.dense([64, 12, 10], hil.from_functions(write, read, *ports, on.clear), overflow="clip", decode=hil.Decode())
    with (
        pytest.raises(Stopped, match="a fault ended the run"),
        hil.points(net, "adfa", DIGITS, **QUICK, run=tmp_path / "run") as points,
    ):
        list(points)
    assert not on
    assert points.run.summary["status"] == "fault"


def test_what_a_run_gives_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = on_twin()
    run = hil.train(net, "adfa", DIGITS, **QUICK, run=tmp_path / "run")
    assert run.net is net
    read = hil.Run(run.folder)
    with pytest.raises(RunError, match="state_dict"):
        _ = read.net
    state = read.state_dict()
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in state.items())
    other = on_twin()
    other.load_state_dict(state)
    pandas = pytest.importorskip("pandas")
    assert isinstance(run.metrics, pandas.DataFrame)
    assert run.metrics.to_dict("records")[0]["loss"] == run.records[0]["loss"]
    assert list(run.metrics[run.metrics.split == "validation"].epoch) == [1, 2]


def test_without_pandas_the_metrics_are_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "epochs": 1}, run=tmp_path / "run")
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setattr("hil.commands.run.find_spec", lambda name: None)
    assert run.metrics == run.records
    assert [line["split"] for line in run.metrics] == ["train", "validation"]


def test_before_the_first_epoch_there_are_no_weights(tmp_path: Path) -> None:
    with hil.points(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "run") as points:
        next(points)
        with pytest.raises(RunError, match="no epoch was finished"):
            points.run.state_dict()
        for point in points:
            if point.step == 9:
                break
    assert points.run.state_dict().keys() == on_twin().state_dict().keys()  # of epoch 1
