"""What [train], [schedule] and [augment] ask for is done, or refused before anything is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import toml

from hil import cli
from hil.build.learner import class_weights
from hil.build.prepared import dataset, prepared
from hil.build.training import built
from hil.config.experiment import read_experiment
from hil.errors import ConfigError
from hil.learners.parts.loss import Mixed
from hil.network import Network
from hil.run import checkpoint
from hil.task import Loss, task_of
from hil.training.loop import TrainingStep, train

SPIKING = toml(device='chip = "lif"', encode="", learner="saf_e")


def hil(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.run([str(each) for each in arguments])
    return code, *capsys.readouterr()


def written(folder: Path, text: str = toml()) -> Path:
    (folder / "e.toml").write_text(text, encoding="utf-8")
    return folder / "e.toml"


@pytest.mark.parametrize(
    ("text", "sets", "said"),
    [
        (toml(), ["train.schedule=cosine"], ['schedule = "cosine"', 'write [schedule] use = "cosine"']),
        (toml(), ["data.shift=2"], ["shift = 2", "write [augment] shift = 2"]),
        (toml(), ["train.form=runs/a"], ['Did you mean "from"']),
        (toml(), ["schedule.use=StepLR", "schedule.step_size=0"], ["[schedule]", "cannot be followed", "ZeroDivision"]),
        (
            toml(), ["schedule.use=OneCycleLR", "schedule.max_lr=1.0", "schedule.total_steps=5"],
            ["2 epochs of 3 batches", "total steps is 5"],
        ),
        (toml(), ["schedule.use=StepLR", "schedule.step_size=1", "schedule.gamma=-1.0"], ["after 1 epochs", "-0.001"]),
        (
            toml(), ["schedule.use=CyclicLR", "schedule.base_lr=0.1", "schedule.max_lr=0.2", "optimizer.use=Adagrad"],
            ["momentum"],
        ),
        (toml(), ["augment.cutout=8"], ["[augment] cutout", "0 to 7"]),
        (toml(), ["augment.flip=1.5"], ["[augment]", "flip = 1.5"]),
        (toml(), ["train.class_weights=[1.0, 2.0]"], ["2 of them", "10"]),
        (toml(), ["train.class_weights=even"], ["class_weights", "balanced"]),
        (toml(learner="ff"), ["train.class_weights=balanced"], ["[train] class_weights", "no loss over classes"]),
        (toml(), ["train.patience=0"], ["patience = 0"]),
        (toml(), ["train.clip_norm=0"], ["clip_norm = 0"]),
        (toml(), ["train.from=runs/none"], ['no run "runs/none"', "hil list runs"]),
        (SPIKING, ["train.accumulate=2", "learner.update=per_step"], ["at every time step", "accumulate", "saf_e"]),
        (toml(learner="cma_es"), ["optimizer.use=Adam"], ["cma_es says itself how far", "use = Adam", "use = SGD, lr = 1.0"]),
        (
            toml(learner="cma_es"), ["optimizer.use=SGD", "optimizer.lr=1.0", "schedule.use=cosine"],
            ["a schedule, cosine", "without [schedule]"],
        ),
    ],
)  # fmt: skip
def test_what_is_refused_opens_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sets: list[str], said: list[str]
) -> None:
    words = [word for each in sets for word in ("--set", each)]
    code, _, err = hil(capsys, "train", written(tmp_path, text), "--run", tmp_path / "r", *words)
    assert code == 2
    for part in (*said, "e.toml", "Outputs: untouched", "Next: "):
        assert part in err, err
    assert not (tmp_path / "r").exists()


def test_a_learner_that_moves_the_weights_once_a_batch_accumulates(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, SPIKING), ["train.accumulate=2", 'learner.update="accumulated"'])
    with built(experiment) as made:
        before = made.training.net.state_dict()["layers.0.synapse.weight"].clone()
        points = train(made.training)
        next(points)
        assert torch.equal(before, made.training.net.state_dict()["layers.0.synapse.weight"])
        next(points)
        assert not torch.equal(before, made.training.net.state_dict()["layers.0.synapse.weight"])


def test_training_examples_are_changed_anew_and_others_never(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path), ["augment.noise=0.5", "augment.shift=1"])
    shown: list[torch.Tensor] = []
    asked: list[torch.Tensor] = []
    with built(experiment) as made:
        step, predict = made.training.learner.step, made.training.learner.predict

        def stepping(net: Network, x: torch.Tensor, label: torch.Tensor, rng: torch.Generator) -> Mapping[str, float]:
            shown.append(x)
            return step(net, x, label, rng)

        def predicting(net: Network, x: torch.Tensor) -> torch.Tensor:
            asked.append(x)
            return predict(net, x)

        made.training.learner.step = stepping  # type: ignore[method-assign]
        made.training.learner.predict = predicting  # type: ignore[method-assign]
        list(train(made.training))
        data = made.training.data
    assert len(shown) == 6
    first, second = (torch.cat(shown[n : n + 3]) for n in (0, 3))
    for one, other in ((first, data.train.x), (second, data.train.x), (first, second)):
        assert one.shape == other.shape
        assert not (one.unsqueeze(1) == other).all(2).any()
    assert torch.equal(torch.cat(asked), data.validation.x.repeat(2, 1))


def test_who_goes_back_has_the_rates_and_the_gradients_of_then(tmp_path: Path) -> None:
    sets = ["schedule.use=ExponentialLR", "schedule.gamma=0.5", "schedule.every=step", "train.accumulate=2", "train.epochs=4"]
    with built(read_experiment(written(tmp_path), sets)) as made:
        training, kept = made.training, None
        for point in train(training):
            if isinstance(point, TrainingStep) and point.step == 4:  # the first batch of the second epoch, of 3
                kept = training.checkpoint()
        assert kept is not None
        assert training.optimizer.param_groups[0]["lr"] == 1e-3 * 0.5**8
        training.go_back(kept)
        assert training.optimizer.param_groups[0]["lr"] == 1e-3 * 0.5**2
        assert (training.step, training.moves.batches, len(training.scores)) == (4, 1, 1)
        assert all(
            torch.equal(a, b) for a, b in zip(*(gathered(point) for point in (training.checkpoint(), kept)), strict=True)
        )


def gathered(point: checkpoint.Checkpoint) -> list[torch.Tensor]:
    return list(checkpoint.under("gathered", point.tensors).values())


# ---- class weights --------------------------------------------------------------------------------------------------------


def test_balanced_classes_weigh_the_same_in_all(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path), ["train.class_weights=balanced"])
    data = dataset(experiment.data)
    task = task_of(data.train.y, data.classes)
    weights = class_weights(experiment, data, task)
    assert weights is not None
    counts = torch.bincount(data.train.y, minlength=10).float()
    torch.testing.assert_close(weights * counts, torch.full((10,), float(counts.mean())))
    torch.testing.assert_close(weights[data.train.y].mean(), torch.tensor(1.0))
    told = read_experiment(experiment.near, [f"train.class_weights={[2.0] * 10}"])
    torch.testing.assert_close(class_weights(told, data, task), torch.ones(10))
    assert class_weights(read_experiment(experiment.near), data, task) is None


@pytest.mark.parametrize(
    "made", [Loss("cross_entropy", weights=(0.5, 2.0, 1.0)), Loss("mse", weights=(0.5, 2.0, 1.0)), Mixed(0.3, (0.5, 2.0, 1.0))]
)
def test_the_weighed_error_is_the_gradient_of_the_weighed_loss(made: Loss | Mixed) -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (20,), generator=rng)
    loss = made.of(scores, label)
    (gradient,) = torch.autograd.grad(loss, scores)
    error, metrics = made.judge(scores.detach(), label)
    torch.testing.assert_close(error, gradient)
    assert metrics["loss"] == pytest.approx(float(loss.detach()))
    plain = replace(made, weights=())
    one = replace(plain, weights=(1.0, 1.0, 1.0))
    torch.testing.assert_close(one.judge(scores.detach(), label).error, plain.judge(scores.detach(), label).error)
    assert metrics["loss"] != pytest.approx(plain.judge(scores.detach(), label).metrics["loss"])


def test_a_weighed_loss_is_that_of_the_learner(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path), [f"train.class_weights={[1.0] * 9 + [5.0]}"])
    with built(experiment) as made:
        weights = made.training.learner.loss.weights  # type: ignore[attr-defined]
    assert weights[9] == pytest.approx(5 * weights[0])


# ---- warm starts ----------------------------------------------------------------------------------------------------------


def test_a_run_begins_with_the_best_weights_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = written(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # beside the experiment file it is found, too
    assert hil(capsys, "train", experiment, "--run", tmp_path / "first")[0] == 0
    best = checkpoint.load(tmp_path / "first" / "checkpoints" / "best.json")
    sets = ["--set", "train.from=first", "--set", "optimizer.lr=1e-30", "--set", "train.record=true"]
    code, out, err = hil(capsys, "train", experiment, "--run", tmp_path / "second", *sets)
    assert code == 0, err
    assert f"the weights of epoch {best.facts['epoch']} of first" in out
    point = checkpoint.load(checkpoint.latest(tmp_path / "second" / "checkpoints"))
    for name, tensor in best.tensors.items():
        assert torch.equal(point.tensors[f"net.{name}"], tensor), name
    summaries = [json.loads((tmp_path / run / "summary.json").read_text(encoding="utf-8")) for run in ("first", "second")]
    assert summaries[1]["validation_accuracy"] == pytest.approx(summaries[0]["validation_accuracy"], abs=0.03)
    for path in (tmp_path / "first").rglob("*"):
        if path.is_file():
            path.unlink()  # a run holds all that it depends on
    code, out, err = hil(capsys, "replay", tmp_path / "second")
    assert code == 0, err
    assert "identical" in out


def test_weights_of_another_network_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = written(tmp_path)
    assert hil(capsys, "train", experiment, "--run", tmp_path / "first", "--set", "train.epochs=1")[0] == 0
    wider = ["--set", "network.widths=[64, 9, 10]", "--set", f"train.from={tmp_path / 'first'}"]
    code, _, err = hil(capsys, "train", experiment, "--run", tmp_path / "second", *wider)
    assert code == 2
    for part in ("those of another network", "layers.0.synapse.weight", "(8, 64)", "(9, 64)", "[train] from"):
        assert part in err, err
    assert not (tmp_path / "second").exists()
    for file in (tmp_path / "first" / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match="no weights that could be read"):
        prepared(read_experiment(experiment, [f"train.from={tmp_path / 'first'}"]), begins=True)
