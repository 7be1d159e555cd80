"""The sentinel in the training loop: a node that moves is put right, at little cost, and a run stays what it was: resumable,
replayable, and the same bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small import Command as Commanded

from hil.cli import run

ROOT = Path(__file__).resolve().parents[2]
FILE = """
seed = 1
[network]
widths = [64, 20, 20, 20, 20, 10]
[device]
use = "mach_zehnder"
v_pi = "3.5 V"
drift_rad_per_s = 0.4
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[optimizer]
lr = 3e-3
[train]
epochs = 2
batch = 16
checkpoint_every = 10
[sentinel]
every = 15
"""
RESTLESS = """
import torch
from sim_devices.mach_zehnder import MachZehnder


class Restless(MachZehnder):
    '''After `at` calls its readings are scaled, bent, and noisier.'''

    def __init__(self, *, v_pi_v=3.5, at=400, scale=1.0, bend=0.0, shout=0.0):
        super().__init__(v_pi_v=v_pi_v)
        self.at, self.scale, self.bend, self.shout, self.calls = at, scale, bend, shout, 0

    def respond(self, state, params, x, rng):
        y, after = super().respond(state, params, x, rng)
        self.calls += 1
        if self.calls > self.at:
            y = y * self.scale + self.bend * torch.sin(x * (4 * torch.pi / 7))
            y = y + self.shout * torch.randn(x.shape, generator=rng)
        return y, after
"""
MORTAL = """
import os, signal
from hil.learners.adfa import ADFA


class Mortal(ADFA):
    steps = 0

    def step(self, net, x, label, rng):
        Mortal.steps += 1
        if str(Mortal.steps) == os.environ.get("DIES_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(net, x, label, rng)
"""
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:

    def call(*arguments: object) -> tuple[int, str]:
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "e.toml"
    path.write_text(text, encoding="utf-8")
    return path


def notes(folder: Path) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["kind"] == "sentinel"]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def restless(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: str, policy: str) -> Path:
    """A node that does not drift and then changes at once."""
    (folder / "restless.py").write_text(RESTLESS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    text = FILE.replace('"mach_zehnder"', '"restless:Restless"').replace("drift_rad_per_s = 0.4", settings)
    return written(folder, text + f"policy = {policy}\n")


def test_a_bias_that_walks_is_followed(tmp_path: Path, command: Command) -> None:
    code, said = command("train", written(tmp_path), "--run", tmp_path / "r")
    assert code == 0, said
    assert "servo, drive moved by" in said
    watched, seen = summary(tmp_path / "r")["sentinel"], notes(tmp_path / "r")
    looks = [note for note in seen if "walk" in note]
    truth = -looks[-1]["step"] * (watched["walked"] / looks[-1]["step"])  # what was followed grows evenly
    assert len(looks) == watched["looks"] == 180 // watched["every"]
    assert watched["did"]["servo"] >= len(looks) - 1
    assert watched["walked"] < -0.3
    assert truth > 0
    assert max(abs(note["walk"]) for note in looks) < 0.2  # V: never further off than one interval's drift


def test_without_the_table_nothing_is_looked_at(tmp_path: Path, command: Command) -> None:
    assert command("train", written(tmp_path, FILE.split("[sentinel]")[0]), "--run", tmp_path / "r")[0] == 0
    assert "sentinel" not in summary(tmp_path / "r")
    assert notes(tmp_path / "r") == []


def test_a_quiet_node_is_left_alone_and_looks_are_cheap(tmp_path: Path, command: Command) -> None:
    text = FILE.replace("drift_rad_per_s = 0.4", "").replace("every = 15", "every = 1")
    code, said = command("train", written(tmp_path, text), "--run", tmp_path / "r")
    assert code == 0, said
    watched = summary(tmp_path / "r")["sentinel"]
    assert "a look every 13 steps, not 1" in said  # four shots a step
    assert (watched["every"], watched["did"], watched["state"]) == (13, {}, "quiet")
    assert watched["shots"] - 16 == watched["looks"] == 180 // 13
    assert (watched["shots"] - 16) / (180 * 4) <= 0.02
    assert "~" not in said.split("reference:")[1].split("a look every")[1]


@pytest.mark.parametrize(
    ("settings", "policy", "did"),
    [
        ("scale = 0.9", '["servo", "rescale", "stop"]', "rescale"),
        ("scale = 0.9", '"log"', "log"),
        ("bend = 0.02", '["servo", "recalibrate"]', "recalibrate"),
    ],
)
def test_what_a_policy_does(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, settings: str, policy: str, did: str
) -> None:
    code, said = command("train", restless(tmp_path, monkeypatch, settings, policy), "--run", tmp_path / "r")
    assert code == 0, said
    assert did in {name for note in notes(tmp_path / "r") for name in note["did"]}
    assert summary(tmp_path / "r")["sentinel"]["state"] == ("act" if did == "log" else "quiet")


def test_stop_ends_with_exit_code_3_and_the_run_goes_on_when_the_node_is_right(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = restless(tmp_path, monkeypatch, "scale = 0.9", '"stop"')
    code, said = command("train", path, "--run", tmp_path / "r")
    assert (code, "the node answers otherwise than its reference" in said, "hil resume" in said) == (3, True, True), said
    assert summary(tmp_path / "r")["status"] == "fault"
    code, said = command("resume", tmp_path / "r")  # the node is made anew, as it was
    assert code == 0, said
    assert summary(tmp_path / "r")["sentinel"]["state"] == "quiet"


def test_roll_back_learns_again_from_a_quiet_time(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    path = restless(tmp_path, monkeypatch, "scale = 0.8", '["roll_back", "rescale"]')
    code, said = command("train", path, "--run", tmp_path / "r")
    assert code == 0, said
    events = [json.loads(line) for line in (tmp_path / "r" / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    back = next(event for event in events if event["kind"] == "roll_back")
    assert back["step"] < back["left"]
    commits = [event["step"] for event in events if event["kind"] == "commit"]
    assert commits.count(back["left"]) == 2  # made again
    assert summary(tmp_path / "r")["sentinel"]["did"].get("rescale") == 1


def test_power_that_steps_with_noise_is_a_mode_hop(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    path = restless(tmp_path, monkeypatch, "scale = 0.8\nshout = 0.004", '["servo", "rescale", "recalibrate", "stop"]')
    code, said = command("train", path, "--run", tmp_path / "r")
    assert code == 0, said
    assert "mode hop: power -2" in said
    assert "going back to a quiet time" in said
    assert "roll_back" in {name for note in notes(tmp_path / "r") for name in note["did"]}


def test_killed_and_resumed_is_the_same_run(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL, encoding="utf-8")
    path = written(tmp_path, FILE.replace('"adfa"', '"mortal:Mortal"'))
    monkeypatch.syspath_prepend(str(tmp_path))
    killed = Commanded("train", path, "--run", tmp_path / "r", environment={"DIES_AT": "134"})
    assert killed.ended() == -signal.SIGKILL, killed.said()
    assert command("resume", tmp_path / "r")[0] == 0
    assert command("train", path, "--run", tmp_path / "whole")[0] == 0
    one, other = (load_file(tmp_path / name / "checkpoints" / "best.safetensors") for name in ("r", "whole"))
    assert all(one[key].equal(other[key]) for key in other)
    for key in ("walked", "looks", "did", "steering", "shots"):
        assert summary(tmp_path / "r")["sentinel"][key] == summary(tmp_path / "whole")["sentinel"][key]
    assert summary(tmp_path / "r")["test_accuracy"] == summary(tmp_path / "whole")["test_accuracy"]


def test_a_recorded_run_is_replayed_with_its_looks(tmp_path: Path, command: Command) -> None:
    assert command("train", written(tmp_path), "--record", "--run", tmp_path / "r")[0] == 0
    code, said = command("replay", tmp_path / "r")
    assert (code, "identical" in said) == (0, True), said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ('policy = "pray"', "policy"),
        ("warn = 0.1", "warn"),
        ("evry = 3", 'Did you mean "every"'),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path: Path, command: Command, wrong: str, says: str) -> None:
    code, said = command("train", written(tmp_path, FILE + wrong + "\n"), "--run", tmp_path / "r")
    assert code == 2, said
    assert says.lower() in said.lower()


def test_a_period_that_is_not_the_nodes_is_told(tmp_path: Path, command: Command) -> None:
    code, said = command("train", written(tmp_path, FILE + 'period = "9 V"\n'), "--run", tmp_path / "r")
    assert (code, "the node does not repeat itself after its period" in said) == (3, True), said


def test_a_chip_of_neurons_has_no_curve_to_watch(tmp_path: Path, command: Command) -> None:
    text = FILE.replace('use = "mach_zehnder"\nv_pi = "3.5 V"\ndrift_rad_per_s = 0.4', 'chip = "lif"').replace(
        "adfa", "adfa_snn"
    )
    code, said = command("train", written(tmp_path, text), "--run", tmp_path / "r")
    assert (code, "[sentinel]" in said) == (2, True), said


CHANNELS = """
from dataclasses import replace

import torch
from sim_devices.mach_zehnder import MachZehnder


class Channels(MachZehnder):
    '''Twenty modulators; the bias of each walks at its own pace, a little with every call.'''

    def __init__(self, *, v_pi_v=3.5, pace_v=0.003):
        super().__init__(v_pi_v=v_pi_v)
        self.pace_v, self.calls = pace_v, 0

    @property
    def spec(self):
        found = super().spec
        return replace(found, inputs=replace(found.inputs, size=20), outputs=replace(found.outputs, size=20))

    def respond(self, state, params, x, rng):
        self.calls += 1
        walk = self.pace_v * self.calls * torch.linspace(-1, 1, 20)
        return super().respond(state, params, x - walk, rng)
"""


def test_twenty_channels_that_walk_are_followed_each_by_itself(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "channels.py").write_text(CHANNELS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = FILE.replace('"mach_zehnder"', '"channels:Channels"').replace("drift_rad_per_s = 0.4", "")
    text = text.replace("[64, 20, 20, 20, 20, 10]", "[64, 20, 10]").replace("epochs = 2\nbatch = 16", "epochs = 5\nbatch = 32")
    code, said = command("train", written(tmp_path, text), "--run", tmp_path / "r")
    assert code == 0, said
    assert "reference of 20 channels, apart" in said
    watched = summary(tmp_path / "r")["sentinel"]
    looks = [note for note in notes(tmp_path / "r") if "walk" in note]
    assert [note["did"] for note in looks] == [["servo"]] * 2
    assert {note["channel"] for note in looks} <= {1, 20}  # those that walk fastest are told
    walked = watched["walked"]
    assert len(walked) == 20
    assert walked == sorted(walked)
    assert walked[19] == pytest.approx(-walked[0], rel=0.1)
    assert abs(walked[0]) > 0.5
    assert "<h2>Drift</h2>" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def test_through_a_served_bench(tmp_path: Path, command: Command) -> None:
    bench = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8")
    (tmp_path / "b.toml").write_text(
        bench.replace("drift_rad_per_s = 4e-4", "drift_rad_per_s = 0.6"), encoding="utf-8"
    )  # the markers, too, are lost
    device = FILE[FILE.index("[device]") : FILE.index("[encode]")]
    path = written(tmp_path, FILE.replace(device, '[device]\nbench = "b.toml"\n'))
    code, said = command("train", path, "--run", tmp_path / "r")
    assert code == 0, said
    watched = summary(tmp_path / "r")["sentinel"]
    assert ", not 7" in said  # the file says so; the node has 7.04 V
    assert watched["walked"] < -1.5
    assert set(watched["did"]) == {"servo"}
