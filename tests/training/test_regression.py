"""Numbers are learned, judged and shown by their own metric, from the first epoch to the report; class-only rules refuse."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from warm import blank

import hil
from hil.build.prepared import prepared
from hil.build.task import TAKE_A_TASK, as_examples
from hil.cli import run as command
from hil.config.experiment import Experiment, experiment_of
from hil.config.resolve import LEARNERS
from hil.data.dataset import usable
from hil.errors import ConfigError, DataError, HilError, Stopped
from hil.report import render
from hil.run import status
from sim_devices.mach_zehnder import MachZehnder

OF_SEQUENCES = ("reservoir", "deep_reservoir", "bptt_memory", "pat_memory", "ff_memory", "phyll_memory")
TAKE_NUMBERS = (*TAKE_A_TASK.split(", "), "ridge")


def sine(examples: int = 600) -> hil.Dataset:
    x = torch.rand(examples, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    return dataset(x, torch.sin(math.pi * x.sum(1, keepdim=True)))


def dataset(x: Tensor, y: Tensor, classes: tuple[str, ...] = ()) -> hil.Dataset:
    first, second = int(0.7 * len(x)), int(0.85 * len(x))
    splits = [hil.Split(x[part], y[part]) for part in (slice(first), slice(first, second), slice(second, None))]
    return hil.Dataset("sine of a sum", *splits, classes, (x.shape[1],), "made here", "0")


def trained(learner: object, folder: Path, width: int = 60, data: hil.Dataset | None = None, **more: object) -> hil.Run:
    net = hil.dense([4, width, 1], MachZehnder(v_pi_v=3.5), gain=7.0, overflow="fold", period=7.0)
    settings = {"epochs": 5, "batch": 32, "lr": 1e-2, "show": False, "report": False, **more}
    return hil.train(net, learner, data or sine(), run=folder, **settings)  # type: ignore[arg-type]


def experiment(use: str, **tables: object) -> Experiment:
    chip = {"chip": "lif"} if use.startswith(("saf", "ottt", "adfa_snn", "spi", "bptt")) else {"use": "mach_zehnder"}
    moved = {"optimizer": {"use": "SGD", "lr": 1.0}} if use in ("cma_es", "genetic") else {}
    table = {"network": {"widths": [4, 20, 1]}, "device": chip, "learner": {"use": use}, **moved, **tables}
    return experiment_of(table, Path("here.toml"))


@pytest.mark.parametrize(("learner", "most"), [("pat", 0.2), ("ridge", 0.5), ("adfa", 0.95), ("spsa", 1.2)])
def test_the_epoch_is_chosen_by_nrmse(learner: str, most: float, tmp_path: Path) -> None:
    run = trained(learner, tmp_path / "r", epochs=1 if learner == "ridge" else 6)
    held = [line["nrmse"] for line in run.metrics if line["split"] == "validation"]
    assert run.summary["validation_nrmse"] == min(held)
    assert run.summary["best_epoch"] == 1 + held.index(min(held))
    assert (run.summary["metric"], run.summary["better"]) == ("nrmse", "lower")
    assert run.test_score is not None
    assert run.test_score < most
    assert run.test_accuracy is None
    assert not any("accuracy" in key for key in run.summary)


def test_ridge_on_two_hundred_features_passes_every_example_once(tmp_path: Path) -> None:
    data = sine(2000)
    run = trained("ridge", tmp_path / "r", 200, data, epochs=1)
    assert run.test_score is not None
    assert run.test_score < 0.2
    assert run.summary["device_passes"] == 200 * (len(data.train) + len(data.validation) + len(data.test))


@pytest.mark.parametrize("learner", [name for name in LEARNERS if name not in (*TAKE_NUMBERS, *OF_SEQUENCES)])
def test_a_learner_that_needs_classes_refuses_numbers_before_anything_is_opened(learner: str) -> None:
    with pytest.raises(ConfigError, match=f"the learner {learner} needs classes, and the targets of sine of a sum are") as told:
        prepared(experiment(learner), sine())
    assert told.value.outputs == "untouched; nothing was opened"
    for name in TAKE_NUMBERS:
        assert name in told.value.allowed


@pytest.mark.parametrize("learner", TAKE_NUMBERS)
def test_the_others_take_them(learner: str) -> None:
    assert prepared(experiment(learner), sine()).task.kind == "numbers"


def test_what_does_not_fit_is_refused_before_anything_is_opened() -> None:
    for tables, what in (
        ({"learner": {"use": "pat", "loss": "cross_entropy"}}, "cross entropy is a loss of classes"),
        ({"task": {"use": "classes"}}, "the data have other targets"),
        ({"task": {"metric": "accuracy"}}, "accuracy is not for numbers"),
        ({"task": {"metric": "nrmsd"}}, 'there is no metric "nrmsd"'),
        ({"task": {"metric": ["r2", "nrmse"], "lower": True}}, "which way hil's own metrics are better is known"),
        ({"task": {"lower": True}}, "which way hil's own metrics are better is known"),
        ({"task": {"metric": "hil.metric:nrmse"}}, 'there is a "nrmse" already'),
        ({"task": {"metric": ["hil.metric:nrmse", "nrmse"]}}, 'there is a "nrmse" already'),
        ({"task": {"metric": ["builtins:max", "torch:max"]}}, 'there is a "max" already'),
        ({"task": {"loss": "huber"}}, 'there is no loss "huber"'),
        ({"network": {"widths": [4, 20, 3]}}, "the network does not fit"),
        ({"learner": {"use": "ridge", "readout": "ridge"}}, "the readout of the learner ridge cannot be fitted after training"),
    ):
        with pytest.raises(ConfigError, match=what):
            prepared(experiment("adfa", **tables), sine())
    with pytest.raises(DataError, match="train targets cannot be judged by nrmse"):
        prepared(experiment("adfa"), dataset(sine().train.x, torch.ones(420, 1)))
    for wrong in (torch.ones(420), torch.ones(420, 1).double(), torch.full((420, 1), torch.nan)):
        with pytest.raises(DataError, match="a train split that nobody can train on"):
            usable(dataset(sine().train.x, wrong))
    labels = dataset(sine().train.x, torch.arange(420) % 3, ("a", "b", "c"))
    with pytest.raises(ConfigError, match="the learner ff lowers losses of its own"):
        prepared(experiment("ff", task={"loss": "mse"}, network={"widths": [4, 20, 3]}), labels)


@dataclass
class NoSettings:
    pass


class OnlyClasses(nn.Module):
    Settings = NoSettings

    @classmethod
    def build(cls, net: object, settings: object, classes: int, rng: object, model: object) -> OnlyClasses:
        raise AssertionError("it is refused before")

    def step(self) -> None: ...

    def predict(self) -> None: ...


def test_a_rule_of_ones_own_that_was_written_for_classes_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs classes") as told:
        trained(OnlyClasses, tmp_path / "r")
    assert "whose build() takes a task" in told.value.allowed


def mean_cubed(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).abs().pow(3).mean()


def largest(outputs: Tensor, target: Tensor) -> float:
    return float((outputs - target).abs().max())


def test_losses_and_metrics_of_ones_own(tmp_path: Path) -> None:
    task = {"loss": f"{__name__}:mean_cubed", "metric": [f"{__name__}:largest", "r2"], "lower": True}
    run = trained("pat", tmp_path / "r", task=task, epochs=3)
    held = [line for line in run.metrics if line["split"] == "validation"]
    assert run.summary["validation_largest"] == min(line["largest"] for line in held)
    assert run.summary["better"] == "lower"
    assert 0 < run.summary["test_r2"] <= 1
    assert run.metric.lower
    assert held[-1]["loss"] < held[0]["loss"]


def test_the_report_and_the_status_speak_of_the_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("pat", tmp_path / "r", epochs=2)
    page = render(run.folder).read_text(encoding="utf-8")
    assert f"{run.test_score:.4g}" in page
    assert "test NRMSE on sine of a sum" in page
    assert "Output over target of 90 test values" in page
    assert "Confusion" not in page
    assert "accuracy" not in page.lower().split("<h2>settings")[0]
    best, epoch = status.read(run.folder).best or (0.0, 0)
    assert (best, epoch) == (run.summary["validation_nrmse"], run.summary["best_epoch"])
    assert f"NRMSE {best:.4g} (epoch {epoch})" in "\n".join(status.lines(status.read(run.folder)))
    assert f"test NRMSE {run.test_score:.4g}" in repr(run)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)
    assert run.plot().axes[1].get_ylabel() == "NRMSE"


def test_a_run_goes_on_with_its_best_score(tmp_path: Path) -> None:
    whole, cut = trained("ridge", tmp_path / "whole", epochs=3), trained("ridge", tmp_path / "cut", epochs=2)
    assert cut.summary["best_epoch"] in (1, 2)
    cut = trained("ridge", tmp_path / "cut", epochs=3)
    for key in ("validation_nrmse", "best_epoch", "steps"):
        assert cut.summary[key] == whole.summary[key]


def test_a_readout_is_fitted_at_the_end_and_kept_if_it_is_better(tmp_path: Path) -> None:
    plain, fitted = (
        trained("adfa", tmp_path / name, epochs=1, **more) for name, more in (("a", {}), ("b", {"readout": "ridge"}))
    )
    told = fitted.summary["readout"]
    assert told["trained"] == plain.summary["validation_nrmse"]
    assert told["kept"]
    assert fitted.summary["validation_nrmse"] == told["fitted"] < told["trained"]
    assert fitted.test_score < plain.test_score  # type: ignore[operator]
    extra = 60 * (len(sine().train.x) + len(sine().validation.x))
    assert fitted.summary["device_passes"] == plain.summary["device_passes"] + extra
    assert fitted.summary["best_epoch"] == plain.summary["best_epoch"]


def test_weights_that_run_away_end_the_run_in_words(tmp_path: Path) -> None:
    with pytest.raises((Stopped, HilError)) as told:
        trained("pat", tmp_path / "r", lr=1e30)
    assert "not a finite number" in str(told.value.__cause__ or told.value)


TAPED = """
[network]
widths = [64, 40, 10]
[data]
train_examples = 200
[device]
use = "mach_zehnder"
v_pi = "3.5 V"
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "last_layer"
[train]
epochs = 1
batch = 50
"""


def test_a_readout_is_fitted_from_a_tape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e.toml").write_text(TAPED, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert command(["train", "e.toml", "--run", "r", "--record"]) == 0
    assert command(["train", "e.toml", "--run", "live", "--set", "learner.use=ridge"]) == 0
    assert command(["replay", "r", "--set", "learner.use=ridge", "--run", "again"]) == 0
    live, again = (json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8")) for name in ("live", "again"))
    assert again["provenance"] == "replay"
    assert again["test_accuracy"] == live["test_accuracy"]  # the same shots, the same noise
    assert again["test_accuracy"] > json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))["test_accuracy"]


def test_ridge_asks_for_one_epoch_unless_more_are_written() -> None:
    assert experiment("ridge").train.epochs == 1
    assert experiment("ridge", train={"epochs": 3}).train.epochs == 3
    assert experiment("adfa").train.epochs == 5


def test_a_sequence_is_one_input_or_one_a_step() -> None:
    x = torch.arange(24.0).view(4, 3, 2)

    def shapes(y: Tensor, classes: tuple[str, ...] = ()) -> tuple[tuple[int, ...], tuple[int, ...]]:
        found = as_examples(hil.Dataset("s", *[hil.Split(x, y)] * 3, classes, (3, 2), "", "0"), experiment("adfa").learner)
        return tuple(found.train.x.shape), tuple(found.test.y.shape)

    assert shapes(torch.zeros(4, 5)) == ((4, 6), (4, 5))
    assert shapes(torch.zeros(4, 3, 5)) == ((12, 2), (12, 5))
    assert shapes(torch.zeros(4, dtype=torch.int64), ("a", "b")) == ((4, 6), (4,))
    assert shapes(torch.zeros(4, 3, dtype=torch.int64), ("a", "b")) == ((12, 2), (12,))
    steps = as_examples(
        hil.Dataset("s", *[hil.Split(x, x.sum(2, keepdim=True))] * 3, (), (3, 2), "", "0"), experiment("adfa").learner
    )
    assert torch.equal(steps.train.x.sum(1, keepdim=True), steps.train.y)
    assert steps.shape == (2,)
