"""hil.train: the run folder of `hil train`, resumable by the same script, its outputs safe, its arguments checked."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing.same import differences as unlike
from torch import nn

import hil
from hil import cli
from hil.data.dataset import subset
from hil.errors import (
    ConfigError,
    DataError,
    ForeignError,
    HilError,
    Interrupted,
    LinkTimeout,
    RunError,
    Stopped,
    UnsafeOutputs,
)
from hil.learners.adfa import ADFA
from hil.network import fill
from hil.training.loop import TrainingStep
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.spiking_array import TwinChip

DIGITS = subset(hil.load("digits"), 256)
QUICK: dict[str, Any] = {"epochs": 2, "batch": 32, "lr": 5e-3, "show": False, "report": False}


def on_twin(seed: int = 0) -> hil.Network:
    return hil.dense([64, 12, 10], MachZehnder(), gain=1.0, overflow="clip", seed=seed)


class Rig:
    """A rig of 12 channels that can break, and says whether its outputs are on."""

    def __init__(self) -> None:
        self.held, self.on, self.broken, self.reads = np.zeros(12), False, 10**9, 0

    def write(self, values: np.ndarray) -> None:
        self.held, self.on = values, True

    def read(self) -> np.ndarray:
        self.reads += 1
        if self.reads > self.broken:
            raise OSError("the cable came off")
        return np.tanh(self.held)

    def safe(self) -> None:
        self.on = False

    def net(self, **more: Any) -> hil.Network:
        ports = hil.Port("dac", -1, 1, "V", 12), hil.Port("adc", -2, 2, "V", 12)
        device = hil.from_functions(self.write, self.read, *ports, self.safe, **more)
        return hil.dense([64, 12, 10], device, overflow="clip", decode=hil.Decode())


def stopping_at(step: int) -> Callable[[Any], None]:
    """A `show` that presses Ctrl-C."""

    def show(point: Any) -> None:
        if isinstance(point, TrainingStep) and point.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return show


def weights(net: hil.Network) -> list[torch.Tensor]:
    return [layer.synapse.weight.detach().clone() for layer in net.stack]  # type: ignore[union-attr, operator]


def test_the_run_folder_is_that_of_hil_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = on_twin()
    before = weights(net)
    run = hil.train(net, "adfa", DIGITS, **{**QUICK, "report": True, "show": True}, run=tmp_path / "run", name="mine")
    said = capsys.readouterr().out
    assert "epoch  2/2" in said
    assert f"run     {run.folder}" in said
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {
        "config.toml",
        "metrics.jsonl",
        "journal.jsonl",
        "summary.json",
        "diagnostics.json",
        "report.html",
        "checkpoints",
    }
    assert run.summary["status"] == "done"
    assert run.summary["provenance"] == "twin"
    assert run.summary["name"] == "mine"
    assert run.summary["twin_honesty"]["correlation"] > 0.99
    assert [(line["epoch"], line["split"]) for line in run.records] == [
        (1, "train"), (1, "validation"), (2, "train"), (2, "validation")
    ]  # fmt: skip
    assert run.test_accuracy == run.summary["test_accuracy"]
    assert f"test {run.test_accuracy:.1%}" in repr(run)
    assert str(run.folder) in repr(run)
    assert len(run.plot().axes) == 2
    assert "mach_zehnder:MachZehnder" in run.report.read_text(encoding="utf-8")
    assert not all(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))


def test_a_plot_of_numbers_names_only_the_curves_that_it_has(tmp_path: Path) -> None:
    x = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    net = hil.dense([4, 12, 1], MachZehnder(), gain=1.0, overflow="clip")
    losses, scores = hil.train(net, "adfa", (x, x.sum(1)), **QUICK, run=tmp_path / "run").plot().axes
    names = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (losses, scores)]
    assert names[0] == ["train", "validation"]
    assert names[1][0] == "validation"
    assert names[1][1].startswith("test ")
    assert scores.get_ylabel() == "NRMSE"


def test_the_best_weights_are_in_the_network_also_of_a_run_that_is_only_read(tmp_path: Path) -> None:
    net, again = on_twin(), on_twin()
    hil.train(net, "adfa", DIGITS, **QUICK, run=tmp_path / "run")
    journal = (tmp_path / "run" / "journal.jsonl").read_bytes()
    shown: list[Any] = []
    hil.train(again, "adfa", DIGITS, **{**QUICK, "show": shown.append}, run=tmp_path / "run")
    assert shown == []
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == journal
    assert all(torch.equal(a, b) for a, b in zip(weights(net), weights(again), strict=True))


@pytest.mark.parametrize("step", [1, 5, 8, 13])
def test_ctrl_c_and_the_same_script_again_give_the_run_without_it(step: int, tmp_path: Path) -> None:
    whole = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "whole")
    with pytest.raises(Interrupted, match="run the script again") as caught:
        hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "show": stopping_at(step)}, run=tmp_path / "cut")
    assert "hil resume" not in str(caught.value)
    assert hil.Run(tmp_path / "cut").summary["status"] == "interrupted"
    assert hil.Run(tmp_path / "cut").test_accuracy is None
    seen: list[Any] = []
    cut = hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "show": seen.append}, run=tmp_path / "cut")
    assert next(point.step for point in seen if isinstance(point, TrainingStep)) == step + 1
    assert list(unlike(whole.folder, cut.folder)) == []


KILLED = """
import os, signal, sys
import hil
from hil.data.dataset import subset
from sim_devices.mach_zehnder import MachZehnder

def show(point):
    if point.step == 11:
        os.kill(os.getpid(), signal.SIGKILL)

net = hil.dense([64, 12, 10], MachZehnder(), gain=1.0, overflow="clip")
hil.train(net, "adfa", subset(hil.load("digits"), 256), epochs=2, batch=32, lr=5e-3, run=sys.argv[1], show=show, report=False)
"""


def test_a_script_that_was_killed_goes_on_with_the_same_numbers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "my script.py"
    script.write_text(KILLED, encoding="utf-8")
    done = subprocess.run([sys.executable, "-P", str(script), str(tmp_path / "cut")], timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert cli.run(["status", str(tmp_path / "cut")]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "dead" in shown
    assert f"python '{script}'" in shown  # as a shell takes it
    cut = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "cut")
    whole = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "whole")
    assert list(unlike(whole.folder, cut.folder)) == []


def test_a_fault_makes_safe_at_once_and_the_script_goes_on(tmp_path: Path) -> None:
    rig = Rig()
    rig.broken = 150
    with pytest.raises(Stopped, match="run the script again") as caught:
        hil.train(rig.net(), "adfa", DIGITS, **QUICK, run=tmp_path / "run")
    cause = caught.value.__cause__
    assert isinstance(cause, ForeignError)
    assert "the cable came off" in str(cause)
    assert 'raise OSError("the cable came off")' in str(cause)
    assert not rig.on
    assert hil.Run(tmp_path / "run").summary["status"] == "fault"
    rig.broken = 10**9
    run = hil.train(rig.net(), "adfa", DIGITS, **QUICK, run=tmp_path / "run")
    assert run.summary["status"] == "done"
    assert run.summary["outputs"] == "safe, by the safe() that was given"
    assert not rig.on


def test_outputs_that_cannot_be_made_safe_are_the_loudest(tmp_path: Path) -> None:
    rig = Rig()
    rig.broken = 150

    def stuck() -> None:
        raise OSError("relay stuck")

    rig.safe = stuck  # type: ignore[method-assign]
    with pytest.raises(UnsafeOutputs, match="relay stuck"):
        hil.train(rig.net(), "adfa", DIGITS, **QUICK, run=tmp_path / "run")
    events = [
        json.loads(line)["kind"] for line in (tmp_path / "run" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert "unsafe" in events


class Closing:
    """A Device class of the user's without safe()."""

    spec = hil.Spec(hil.Port("in", -4, 4), hil.Port("out", -4, 4), provenance="real")

    def __init__(self, fails: int = 10**9) -> None:
        self.left, self.closed = fails, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("lost")
        return torch.sin(x)

    def close(self) -> None:
        self.closed += 1


def test_a_device_class_is_closed_after_a_fault_and_left_open_otherwise(tmp_path: Path) -> None:
    good, bad = Closing(), Closing(5)
    run = hil.train(hil.dense([64, 12, 10], good, overflow="clip"), "adfa", DIGITS, **QUICK, run=tmp_path / "good")
    assert good.closed == 0
    assert run.summary["provenance"] == "real"
    with pytest.raises(Stopped):
        hil.train(hil.dense([64, 12, 10], bad, overflow="clip"), "adfa", DIGITS, **QUICK, run=tmp_path / "bad")
    assert bad.closed > 0


class Shaky(Closing):
    """A device behind a wire that loses one answer, and can be brought back."""

    lost = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.lost += 1
        if self.lost == 7:
            raise LinkTimeout("no answer", where="wire")
        return torch.sin(x)

    def clear(self) -> None: ...

    def reopen(self) -> None: ...

    def identify(self) -> str:
        return "the same"

    def reinstate(self) -> None: ...

    def verify(self) -> str:
        return "answers"


def test_a_device_with_rungs_is_recovered_and_the_run_goes_on(tmp_path: Path) -> None:
    shaky = Shaky()
    run = hil.train(hil.dense([64, 12, 10], shaky, overflow="clip"), "adfa", DIGITS, **QUICK, run=tmp_path / "run")
    assert run.summary["faults_recovered"] == 1
    assert shaky.closed == 0


def test_a_program_with_another_default_dtype_gets_the_same_numbers(tmp_path: Path) -> None:
    plain = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "plain")
    torch.set_default_dtype(torch.float64)
    try:
        double = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "double")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert list(unlike(plain.folder, double.folder)) == []


def test_who_answered_is_unknown_unless_told(tmp_path: Path) -> None:
    for told, shown in (({}, "unknown"), ({"provenance": "real"}, "real")):
        run = hil.train(Rig().net(**told), "adfa", DIGITS, **{**QUICK, "epochs": 1}, run=tmp_path / shown)
        assert run.summary["provenance"] == shown


def test_more_epochs_train_a_finished_run_longer(tmp_path: Path) -> None:
    hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "epochs": 1}, run=tmp_path / "run")
    run = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "run")
    assert run.summary["test_reads"] == 2
    assert run.records[-1]["epoch"] == 2
    with pytest.raises(ConfigError, match="fewer epochs"):
        hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "epochs": 1}, run=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 1e-2}, "optimizer.lr"),
        ({"batch": 64}, "train.batch"),
        ({"seed": 3}, "seed"),
        ({"loss": "mse"}, "learner.loss"),
        ({"feedback": hil.Feedback.from_table({"g": {"family": "sine", "phase": 0.1}})}, "learner.feedback"),
    ],
)
def test_a_run_with_other_settings_is_refused(change: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "epochs": 1}, run=tmp_path / "run")
    with pytest.raises(RunError, match=f"other settings.*{said}"):
        hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "epochs": 1, **change}, run=tmp_path / "run")


def test_another_network_or_data_set_or_learner_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=folder)
    wider = hil.dense([64, 13, 10], MachZehnder(), gain=1.0, overflow="clip")
    for net, learner, data in (
        (wider, "adfa", DIGITS), (on_twin(), "dfa", DIGITS), (on_twin(), "adfa", subset(hil.load("digits"), 128)),
    ):  # fmt: skip
        with pytest.raises(RunError, match="other settings"):
            hil.train(net, learner, data, **QUICK, run=folder)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "config.toml").write_text("seed = 0\n", encoding="utf-8")
    with pytest.raises(RunError, match="made from an experiment file"):
        hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="new or empty"):
        hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "full")


def test_the_command_line_reads_the_run_and_says_that_the_script_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        hil.train(on_twin(), "adfa", DIGITS, **{**QUICK, "show": stopping_at(9)}, run=tmp_path / "run")
    folder = str(tmp_path / "run")
    capfd.readouterr()
    assert cli.run(["status", folder]) == 0
    shown = capfd.readouterr().out
    assert "interrupted" in shown
    assert "run the script again" in shown
    assert cli.run(["report", folder]) == 0
    assert (tmp_path / "run" / "report.html").exists()
    for words in (
        ["resume", folder],
        ["resume", folder, "--set", "train.epochs=9"],
        ["use", folder],
        ["train", f"{folder}/config.toml"],
    ):
        assert cli.run(words) == 2, words
    told = capfd.readouterr().err
    assert told.count("this run was made from Python") >= 3
    assert told.count("run the script again with the same run folder, and it goes on") >= 3


MUCH: dict[str, Any] = {
    "optimizer": {"use": "SGD", "momentum": 0.9}, "scheduler": {"use": "StepLR", "step_size": 5, "every": "step"},
    "augment": {"shift": 1, "noise": 0.1}, "accumulate": 3, "clip_norm": 1.0, "class_weights": "balanced",
}  # fmt: skip


def test_training_as_in_a_file_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    nets = [on_twin(), on_twin(), on_twin(seed=9)]
    whole = hil.train(nets[0], "adfa", DIGITS, **QUICK, **MUCH, run=tmp_path / "whole")

    def stop(point: Any) -> None:
        if isinstance(point, TrainingStep) and point.step == 12:  # of 8 an epoch; one batch is gathered since the last move
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        hil.train(nets[1], "adfa", DIGITS, **{**QUICK, "show": stop}, **MUCH, run=tmp_path / "r")
    hil.train(nets[1], "adfa", DIGITS, **QUICK, **MUCH, run=tmp_path / "r")
    assert list(unlike(tmp_path / "whole", tmp_path / "r")) == []
    more = {**QUICK, "epochs": 9, "lr": 1e-30, "patience": 1, "min_delta": 0.5}
    again = hil.train(nets[2], "adfa", DIGITS, **more, start_from=tmp_path / "whole", run=tmp_path / "warm")
    assert again.test_accuracy == pytest.approx(whole.test_accuracy, abs=0.05)
    assert torch.equal(nets[2].state_dict()["layers.0.synapse.weight"], nets[0].state_dict()["layers.0.synapse.weight"])
    assert again.summary["stopped_early"] == 1
    same = hil.train(nets[2], "adfa", DIGITS, **more, start_from=tmp_path / "whole", run=tmp_path / "warm")
    assert same.summary["test_reads"] == 1  # it is finished, though it has fewer epochs than asked for


@pytest.mark.parametrize(
    ("learner", "more", "said"),
    [
        ("adfaa", {}, 'did you mean "adfa"'),
        ("last_layr", {}, 'did you mean "last_layer"'),
        ("adfa", {"feedbak": {}}, 'Did you mean "feedback"'),
        ("adfa", {"loss": "mean"}, "mean"),
        ("adfa", {"feedback": object()}, "feedback = <object"),
        ("adfa", {"epochs": 0}, "epochs"),
        ("adfa", {"batch": 2.5}, "batch"),
        ("adfa", {"scheduler": "linear"}, "schedule"),
        ("adfa", {"scheduler": {"use": "StepLR", "step_sise": 1}}, 'Did you mean "step_size"'),
        ("adfa", {"scheduler": {"use": "OneCycleLR", "max_lr": 0.1, "total_steps": 3}}, "cannot be followed for 2 epochs"),
        ("adfa", {"patience": 0}, "patience"),
        ("adfa", {"clip_norm": -1.0}, "clip_norm"),
        ("adfa", {"accumulate": 0}, "accumulate"),
        ("adfa", {"class_weights": [1.0, 2.0]}, "not one weight a class"),
        ("adfa", {"augment": {"shift": 8}}, "nothing would be left"),
        ("adfa", {"augment": {"flop": 0.5}}, 'Did you mean "flip"'),
        ("adfa", {"start_from": "runs/none"}, 'no run "runs/none"'),
        ("adfa", {"lr": -1.0}, "lr"),
        ("adfa", {"optimizer": "Adamm"}, 'did you mean "Adam'),
        ("adfa", {"optimizer": {"use": "SGD", "momentom": 0.9}}, 'Did you mean "momentum"'),
        ("adfa", {"seed": -1}, "seed"),
        (3, {}, "without step, predict"),
        (nn.Linear, {}, "Settings"),
        (nn.Linear(2, 2), {}, "without step, predict"),
    ],
)
def test_arguments_are_checked_before_anything_is_driven(
    learner: Any, more: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    rig = Rig()
    net = rig.net()
    with pytest.raises(HilError) as caught:
        hil.train(net, learner, DIGITS, **{**QUICK, **more}, run=tmp_path / "run")
    assert said in str(caught.value)
    assert rig.reads == 0
    assert not (tmp_path / "run").exists()


def test_networks_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    digital = hil.Network([hil.Layer(nn.Linear(64, 12)), hil.Layer(nn.Linear(12, 10))])
    twin = MachZehnder()
    cases: list[tuple[Any, Any, str]] = [
        (digital, DIGITS, "without any device"),
        (nn.Linear(64, 10), DIGITS, "a hil.Network"),
        (hil.dense([64, 12, 7], twin, overflow="clip"), DIGITS, "10 outputs"),
        (hil.dense([50, 12, 10], twin, overflow="clip"), DIGITS, "64 inputs"),
        (hil.dense([64, 12, 11], twin, overflow="clip"), DIGITS, "one a class"),
        (on_twin(), 3, "not data"),
        (on_twin(), (DIGITS.train.x, DIGITS.train.y[1:]), "not one target for each example"),
        (on_twin(), "digitts", 'did you mean "digits"'),
        (on_twin(), dataclasses.replace(DIGITS, classes=("0", "1")), "number of a class"),
    ]
    for net, data, said in cases:
        with pytest.raises((ConfigError, DataError)) as caught:
            hil.train(net, "adfa", data, **QUICK, run=tmp_path / "run")
        assert said in str(caught.value)


def test_dense_measures_the_decode_and_refuses_what_is_no_device() -> None:
    first, layer = on_twin(), on_twin().stack[0]
    assert layer.decode == first.stack[0].decode
    answered = layer.measure(torch.linspace(-3.5, 3.5, 501).reshape(1, -1))
    assert answered.min() == pytest.approx(-1, abs=0.02)
    assert answered.max() == pytest.approx(1, abs=0.02)
    for wrong, said in ((MachZehnder, "make one of it"), (3, "int without spec"), (nn.Linear(2, 2), "without spec, close")):
        with pytest.raises(ConfigError, match=said):
            hil.dense([64, 12, 10], wrong)  # type: ignore[arg-type]
    rig = Rig()
    ports = hil.Port("dac", -1, 1, "V", 12), hil.Port("adc", -2, 2, "V", 12)
    device = hil.from_functions(rig.write, rig.read, *ports)
    with pytest.raises(ConfigError, match="as wide as the device"):
        hil.dense([64, 13, 10], device, overflow="clip")
    assert rig.reads == 0


def test_a_sweep_that_fails_leaves_outputs_safe() -> None:
    rig = Rig()
    rig.broken = 3
    ports = hil.Port("dac", -1, 1, "V", 12), hil.Port("adc", -2, 2, "V", 12)
    device = hil.from_functions(rig.write, rig.read, *ports, rig.safe)
    with pytest.raises(ForeignError, match="came off"):
        hil.dense([64, 12, 10], device)
    assert not rig.on


def test_the_weights_are_those_of_a_run_from_a_file(tmp_path: Path) -> None:
    from hil.build.network import chain_of
    from hil.config.experiment import read_experiment

    path = tmp_path / "file.toml"
    path.write_text(
        'seed = 5\n[network]\nwidths = [64, 12, 10]\n[device]\nuse = "mach_zehnder"\n[learner]\nuse = "adfa"\n',
        encoding="utf-8",
    )
    found = chain_of(read_experiment(path).network, 5, DIGITS).synapses
    assert all(torch.equal(a.weight, b) for a, b in zip(found, weights(on_twin(5)), strict=True))  # type: ignore[arg-type]


def test_a_chip_gives_every_layer_an_array(tmp_path: Path) -> None:
    net = hil.dense([64, 20, 16, 10], TwinChip())  # type: ignore[arg-type]
    assert [layer.device.spec.inputs.size for layer in net.stack[:-1] if layer.device is not None] == [20, 16]
    run = hil.train(net, "adfa_snn", subset(DIGITS, 64), **{**QUICK, "epochs": 1}, run=tmp_path / "run", time_steps=4)
    assert run.summary["status"] == "done"
    assert run.summary["device_passes"] > 0


class Plain(nn.Module):
    """A learner of the user's: the readout alone."""

    moves = 0

    def step(self, net: hil.Network, x: torch.Tensor, label: torch.Tensor, rng: torch.Generator) -> dict[str, float]:
        trace = net.forward(x)
        scores = trace.outputs[-1]
        error = (scores.softmax(1) - nn.functional.one_hot(label, 10)) / len(x)
        fill(net, trace, [torch.zeros_like(trace.pre[0]), error])
        self.moves += 1
        return {"loss": float(nn.functional.cross_entropy(scores, label))}

    def predict(self, net: hil.Network, x: torch.Tensor) -> torch.Tensor:
        return net.forward(x).outputs[-1]


def test_a_learner_of_the_users_as_an_object_or_a_class(tmp_path: Path) -> None:
    mine = Plain()
    run = hil.train(on_twin(), mine, DIGITS, **QUICK, run=tmp_path / "object")
    assert run.test_accuracy is not None
    assert mine.moves >= 16  # one more for the diagnostics
    with pytest.raises(ConfigError, match="no settings beside"):
        hil.train(on_twin(), Plain(), DIGITS, **QUICK, run=tmp_path / "settings", scale=0.1)
    hil.train(on_twin(), ADFA, DIGITS, **QUICK, run=tmp_path / "class", loss="mse")
    named = hil.train(on_twin(), "adfa", DIGITS, **QUICK, run=tmp_path / "name", loss="mse")
    assert hil.Run(tmp_path / "class").test_accuracy == named.test_accuracy


def test_without_a_folder_a_new_one_is_made_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        hil.train(on_twin(), "adfa", subset(DIGITS, 64), **{**QUICK, "epochs": 1}, name="mine")
    assert len(list((tmp_path / "runs").glob("mine-*"))) == 2


def test_a_bench_is_opened_trained_on_and_off_afterwards(tmp_path: Path) -> None:
    bench_file = Path(__file__).resolve().parent.parent / "benches" / "mzm_awg_scope.toml"
    with hil.open(bench_file) as bench:
        assert bench.spec.provenance == "twin" or bench.node.provenance == "twin"
        assert "SIM-33622" in bench.instruments["awg"]
        assert "SIM-33622" in repr(bench)
        with pytest.raises(HilError):
            bench.forward(torch.full((1, 4), 99.0))
        net = hil.dense([64, 12, 10], bench, gain=1.5, overflow="fold", period=7.04)
        run = hil.train(net, "adfa", subset(DIGITS, 64), **{**QUICK, "epochs": 1}, run=tmp_path / "run")
        assert run.summary["provenance"] == "twin"
        assert set(run.summary["resources"]) == {"awg", "scope"}
        assert bench.forward(torch.zeros(1, 3)).shape == (1, 3)
    with pytest.raises(HilError):
        bench.forward(torch.zeros(1, 3))
