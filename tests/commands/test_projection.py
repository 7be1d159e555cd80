"""[projection] of an experiment: a device of its own projects the error; opened, counted, kept, and refused where it cannot."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from killing.same import differences
from small import Command, toml, until

from hil.build.training import built
from hil.cli import run as hil_run
from hil.config.experiment import read_experiment
from hil.errors import Refused
from hil.run import checkpoint
from hil.run.journal import contents

BENCH = Path(__file__).resolve().parents[2] / "benches" / "slm_camera_wired.toml"
MEDIUM = '[projection]\nuse = "scattering"\nmacropixels = 36\npixels = 64\nplanes = 2\n'
SPIKING = toml(64, device='chip = "lif"', encode="", learner='adfa_snn"\ntime_steps = "3', train="epochs = 1").replace(
    '"3"', "3"
)


def written(folder: Path, text: str) -> Path:
    path = folder / "e.toml"
    path.write_text(text, encoding="utf-8")
    return path


def reached(run: Path, step: int) -> bool:
    return any((checkpoint.place(one) or (0,))[0] >= step for one in checkpoint.listed(run / "checkpoints"))


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("learner", ["adfa", "dfa"])
def test_the_shots_of_the_projection_are_counted_and_a_longer_run_goes_on_bit_for_bit(tmp_path: Path, learner: str) -> None:
    path = written(tmp_path, toml(learner=learner, train="epochs = 2\nbatch = 32\nthreads = 1") + MEDIUM)
    assert hil_run(["train", str(path), "--run", str(tmp_path / "whole")]) == 0
    assert hil_run(["train", str(path), "--run", str(tmp_path / "cut"), "--set", "train.epochs=1"]) == 0
    assert hil_run(["resume", str(tmp_path / "cut"), "--set", "train.epochs=2"]) == 0
    whole, cut = summary(tmp_path / "whole"), summary(tmp_path / "cut")
    frames = 8 * 10 * 2 + 2 * 96 * 4  # probes, then two epochs of four shots an example
    assert whole["projection"]["frames"] == cut["projection"]["frames"] == frames
    assert whole["projection"]["passes"] == frames * 36
    assert whole["device_passes"] == cut["device_passes"] > whole["projection"]["passes"]
    assert whole["projection"]["unexplained"] == cut["projection"]["unexplained"]
    assert whole["validation_accuracy"] == cut["validation_accuracy"]
    assert whole["test_accuracy"] == cut["test_accuracy"]
    assert whole["node"]["projection"]["use"] == "scattering"
    assert hil_run(["use", str(tmp_path / "whole")]) == 0  # without the device that projects
    last = [contents(tmp_path / name / "journal.jsonl", most=0).last for name in ("whole", "cut")]
    assert last[0] is not None
    assert last[1] is not None
    assert last[0]["passes"] == last[1]["passes"]


def test_spiking_neurons_are_taught_through_a_device(tmp_path: Path) -> None:
    path = written(tmp_path, SPIKING + MEDIUM)
    assert hil_run(["train", str(path), "--run", str(tmp_path / "r")]) == 0
    assert summary(tmp_path / "r")["projection"]["frames"] > 64 * 4


@pytest.mark.timeout(300)  # a virtual bench in a process of its own, three times
def test_a_bench_over_its_wires_is_kept_stopped_and_killed_and_goes_on(tmp_path: Path) -> None:
    """The noise of the bench is in the checkpoint that the killed run goes on from, so the numbers are those of a whole run."""
    (tmp_path / "medium.toml").write_text(BENCH.read_text(encoding="utf-8"), encoding="utf-8")
    text = toml(examples=24, train="epochs = 3\nbatch = 8\nthreads = 1\ncheckpoint_every = 2")
    path = written(tmp_path, text + '[projection]\nbench = "medium.toml"\nplanes = 2\n')
    assert hil_run(["train", str(path), "--run", str(tmp_path / "whole")]) == 0
    cut = tmp_path / "cut"
    command = Command("train", path, "--run", cut)
    assert until(lambda: reached(cut, 2))
    command.send(signal.SIGINT)  # the light is off when this checkpoint is written
    assert command.ended() == 130, command.said()
    (tmp_path / "medium.toml").unlink()  # the run has its own copy
    command = Command("resume", cut)
    assert until(lambda: reached(cut, 6))
    command.kill()
    assert hil_run(["resume", str(cut)]) == 0
    whole = summary(tmp_path / "whole")
    assert list(differences(tmp_path / "whole", cut)) == []
    for name in ("validation_accuracy", "test_accuracy", "test_loss", "device_passes"):
        assert summary(cut)[name] == whole[name]
    assert summary(cut)["projection"]["frames"] == whole["projection"]["frames"]
    assert "projection slm" in whole["resources"]
    assert whole["outputs"] == "off, read back"
    assert (cut / "projection" / "guardian.jsonl").is_file()
    (cut / "projection.toml").write_text("# another\n" + BENCH.read_text(encoding="utf-8"), encoding="utf-8")
    assert hil_run(["resume", str(cut), "--set", "train.epochs=3"]) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (toml(learner="backprop") + MEDIUM, "this learner projects no error"),
        (toml() + "record = true\n" + MEDIUM, "could not be replayed"),
        (toml() + "[projection]\nplanes = 3\n", "one device is needed"),
        (toml() + '[projection]\nbench = "b.toml"\nplanez = 3\n', "planez"),
        (toml() + MEDIUM.replace("planes = 2", "planes = 1"), "planes = 1: wrong value"),
        (toml(widths="64, 40, 30, 10") + MEDIUM, "narrower"),
        (toml() + MEDIUM + 'levels = ["0", "300"]\n', "levels"),
    ],
)
def test_what_cannot_project_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(Refused) as refusal, built(read_experiment(path)):
        pass
    assert said in str(refusal.value)
    assert "projection" in str(refusal.value)
