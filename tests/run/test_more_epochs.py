"""A finished run takes more epochs, and then is the run that had them from its beginning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import MODULATOR, toml

from hil import cli
from hil.run.checkpoint import latest, load

TWIN = toml(device=MODULATOR + "\ndrift_rad_per_rts = 0.1")
KEPT = ("test_accuracy", "test_loss", "validation_accuracy", "best_epoch", "device_passes", "steps")


def contents(run: Path) -> dict[str, bytes]:
    """The files of a run, but for its lock and what was printed."""
    files = (path for path in run.iterdir() if path.is_file() and path.name not in ("run.lock", "output.log"))
    return {path.name: path.read_bytes() for path in files}


def hil(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.run([str(each) for each in arguments])
    return code, *capsys.readouterr()


def trained(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, *sets: str) -> Path:
    (tmp_path / "e.toml").write_text(TWIN, encoding="utf-8")
    more = [word for each in sets for word in ("--set", each)]
    code, _, err = hil(capsys, "train", tmp_path / "e.toml", "--run", tmp_path / name, *more)
    assert code == 0, err
    return tmp_path / name


def summary(run: Path) -> dict[str, object]:
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("sets", "steps"), [((), (3, 4)), (("optimizer.use=SGD", "optimizer.lr=0.1"), (4,)), (("train.record=true",), (4,))]
)
def test_it_is_the_longer_run_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: tuple[str, ...], steps: tuple[int, ...]
) -> None:
    whole, run = trained(tmp_path, capsys, "whole", "train.epochs=4", *sets), trained(tmp_path, capsys, "r", *sets)
    for epochs in steps:
        code, out, err = hil(capsys, "resume", run, "--set", f"train.epochs={epochs}")
        assert code == 0, err
        assert f"the learning rate is constant, so this is a run of {epochs} epochs" in out
        assert "the test split" in out
    here, there = load(latest(run / "checkpoints")), load(latest(whole / "checkpoints"))
    assert here.tensors.keys() == there.tensors.keys()
    assert all(torch.equal(here.tensors[key], there.tensors[key]) for key in here.tensors)
    assert [summary(run)[key] for key in KEPT] == [summary(whole)[key] for key in KEPT]
    assert (summary(whole)["test_reads"], summary(run)["test_reads"]) == (1, 1 + len(steps))
    assert f"read {1 + len(steps)} times" in str(summary(run)["warnings"])
    assert (run / "metrics.jsonl").read_text(encoding="utf-8").count("\n") == 8
    assert (run / "report.html").is_file()
    drawn = [json.loads((folder / "diagnostics.json").read_text(encoding="utf-8")) for folder in (run, whole)]
    assert drawn[0].keys() == drawn[1].keys()
    assert drawn[0]["transfer"] == drawn[1]["transfer"]
    assert "finished" in hil(capsys, "resume", run)[2]


@pytest.mark.parametrize("use", [("StepLR", "step_size=1"), ("ReduceLROnPlateau", "patience=0")])
def test_with_a_scheduler_and_augmentation_it_is_the_longer_run_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], use: tuple[str, str]
) -> None:
    sets = (f"schedule.use={use[0]}", f"schedule.{use[1]}", "augment.shift=1", "train.accumulate=2")
    whole, run = trained(tmp_path, capsys, "whole", "train.epochs=4", *sets), trained(tmp_path, capsys, "r", *sets)
    code, out, err = hil(capsys, "resume", run, "--set", "train.epochs=4")
    assert code == 0, err
    assert f"{use[0]} goes on: this is a run of 4 epochs from its beginning" in out
    here, there = load(latest(run / "checkpoints")), load(latest(whole / "checkpoints"))
    assert all(torch.equal(here.tensors[key], there.tensors[key]) for key in here.tensors)
    assert here.facts["schedule"] == there.facts["schedule"]
    assert [summary(run)[key] for key in KEPT] == [summary(whole)[key] for key in KEPT]


def test_a_schedule_that_does_not_last_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, capsys, "r", "schedule.use=OneCycleLR", "schedule.max_lr=0.01", "schedule.total_steps=6")
    before = {
        path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name not in ("run.lock", "output.log")
    }
    code, _, err = hil(capsys, "resume", run, "--set", "train.epochs=3")
    assert code == 2
    for part in ("OneCycleLR cannot be followed for 3 epochs of 3 batches", "total steps is 6", "Outputs: untouched"):
        assert part in err, err
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.name in before}


def test_another_schedule_goes_on_where_it_would_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, capsys, "r")
    sets = ["train.epochs=3", "schedule.use=ExponentialLR", "schedule.gamma=0.5"]
    words = [word for each in sets for word in ("--set", each)]
    assert "schedule.use constant -> ExponentialLR" in hil(capsys, "resume", run, *words)[2]
    code, _, err = hil(capsys, "resume", run, *words, "--changed")
    assert code == 0, err
    facts = load(latest(run / "checkpoints")).facts
    assert facts["schedule"]["told"] == 3
    assert facts["schedule"]["rates"] == [1e-3 / 8]


def test_patience_ends_a_run_and_more_of_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_better = ("train.min_delta=0.5", "train.epochs=6", "train.patience=2")  # but in the first epoch
    run, whole = (
        trained(tmp_path, capsys, "r", *no_better),
        trained(tmp_path, capsys, "whole", *no_better[:1], "train.epochs=4"),
    )
    found = load(latest(run / "checkpoints")).facts
    assert (found["epoch"], len(found["scores"])) == (3, 3)
    assert summary(run)["stopped_early"] == 2
    assert "stopped_early" not in summary(whole)
    assert summary(run)["best_epoch"] == max(range(3), key=lambda n: found["scores"][n]) + 1
    before = {
        path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name not in ("run.lock", "output.log")
    }
    for sets in ("train.epochs=9", "train.patience=1"):
        code, _, err = hil(capsys, "resume", run, "--set", sets)
        assert code == 2
        for part in ("nothing is left to train", "patience of", "more patience", "--set train.patience="):
            assert part in err, err
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.name in before}
    code, out, err = hil(capsys, "resume", run, "--set", "train.patience=3")
    assert code == 0, err
    assert "stopped before the last epoch: no better validation accuracy for 3 epochs" in out
    here, there = load(latest(run / "checkpoints")), load(latest(whole / "checkpoints"))
    assert here.facts["epoch"] == 4
    assert all(torch.equal(here.tensors[key], there.tensors[key]) for key in here.tensors)
    assert summary(run)["test_reads"] == 2


def test_a_schedule_is_stretched_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, capsys, "r", "schedule.use=cosine")
    code, out, err = hil(capsys, "resume", run, "--set", "train.epochs=4")
    assert code == 0, err
    assert "the cosine schedule is stretched to 4 epochs: after epoch 2" in out
    assert "at 50% of [optimizer] lr instead of 0%" in out


@pytest.mark.parametrize(
    ("sets", "more", "parts"),
    [
        (["train.epochs=1"], [], ["fewer epochs than were trained", "2 or more"]),
        (["train.epochs=2"], [], ["nothing is left to train", "2 epochs"]),
        (["train.epochs=9", "train.budget_passes=10"], [], ["nothing is left to train"]),
        (["optimizer.lr=0.1", "train.epochs=4"], [], ["optimizer.lr 0.001 -> 0.1", "train.epochs", "--changed"]),
        (["seed=2"], [], ["seed 1 -> 2", "hil train"]),
        (["data.train_examples=90"], [], ["data.train_examples"]),
        (["train.epochs=0"], [], ["epochs"]),
        (["train.epoch=5"], [], ["epoch", "Did you mean"]),
        (["train.checkpoint_every=3"], [], ["nothing is left to train"]),
        (["train.batch=1"], ["--changed"], ["nothing is left to train"]),
    ],
)
def test_what_is_refused_changes_nothing(
    shared: Path, capsys: pytest.CaptureFixture[str], sets: list[str], more: list[str], parts: list[str]
) -> None:
    before = {
        path.name: path.read_bytes()
        for path in shared.iterdir()
        if path.is_file() and path.name not in ("run.lock", "output.log")
    }
    code, _, err = hil(capsys, "resume", shared, *[word for each in sets for word in ("--set", each)], *more)
    assert code == 2, err
    for part in (*parts, "Outputs: untouched", "Next: "):
        assert part in err, err
    assert before == {path.name: path.read_bytes() for path in shared.iterdir() if path.name in before}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("more")
    (folder / "e.toml").write_text(TWIN, encoding="utf-8")
    assert cli.run(["train", str(folder / "e.toml"), "--run", str(folder / "r")]) == 0
    return folder / "r"


def test_an_unfinished_run_takes_more_and_fewer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from hil.training import session
    from hil.training.loop import TrainingStep, train

    def interrupted(training: object) -> object:
        for point in train(training):  # type: ignore[arg-type]
            if isinstance(point, TrainingStep) and point.step == 4:
                os.kill(os.getpid(), signal.SIGINT)
            yield point

    whole = trained(tmp_path, capsys, "whole", "train.epochs=3")
    monkeypatch.setattr(session, "train", interrupted)
    run = tmp_path / "r"
    assert hil(capsys, "train", tmp_path / "e.toml", "--run", run, "--set", "train.epochs=9")[0] == 130
    monkeypatch.undo()
    code, _, err = hil(capsys, "resume", run, "--set", "train.epochs=1")  # in the middle of the second
    assert code == 2, err
    assert "2 or more" in err
    assert hil(capsys, "resume", run, "--set", "train.epochs=3")[0] == 0
    assert [summary(run)[key] for key in KEPT] == [summary(whole)[key] for key in KEPT]
    assert summary(run)["test_reads"] == 1


def test_other_settings_with_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, capsys, "r")
    before = load(latest(run / "checkpoints")).tensors["net.layers.0.synapse.weight"]
    code, out, err = hil(capsys, "resume", run, "--set", "train.epochs=3", "--set", "optimizer.lr=1e-30", "--changed")
    assert code == 0, err
    assert "optimizer.lr 0.001 -> 1e-30" in out
    assert torch.equal(before, load(latest(run / "checkpoints")).tensors["net.layers.0.synapse.weight"])
