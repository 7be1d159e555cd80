"""A recorded run, repeated without any bench: the same bits, or a refusal that says what differs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from small import Command as Commanded
from small import toml
from torch import Tensor

from hil.build import bench as opening
from hil.build.shapes import spiking, waveform
from hil.cli import run
from hil.device import ArraySpec, Port, Spec, Streaming
from hil.errors import OutOfRange, ReplayDiffers, TapeEnded
from hil.tape.format import CHUNKS, Reel, chunk_path
from hil.tape.recorder import RecorderChip, recorded
from hil.tape.replay import ReplayChip, reels, replay
from hil.tape.writer import Tape
from sim_devices.spiking_array import TwinChip

ROOT = Path(__file__).resolve().parents[2]
SPEC = Spec(Port("drive", -9.0, 9.0, "V"), Port("reading", -9.0, 9.0, "V"), provenance="real")
TWIN = toml(256, "64, 12, 12, 10", train="epochs = 2\nbatch = 32\nrecord = true")
SPIKES = """
seed = 1
[data]
train_examples = 128
[network]
widths = [64, 12, 12, 10]
[device]
chip = "lif"
[learner]
use = "saf_e"
time_steps = 2
[train]
epochs = 1
batch = 64
"""
SUICIDE = """
import os, signal
from hil.learners.adfa import ADFA


class Mortal(ADFA):
    steps = 0

    def step(self, net, x, label, rng):
        found = super().step(net, x, label, rng)
        Mortal.steps += 1
        if str(Mortal.steps) == os.environ.get("DIES_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        return found
"""

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:

    def call(*arguments: object) -> tuple[int, str]:
        code = run([str(a) for a in arguments])
        return code, "".join(capsys.readouterr())

    return call


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "e.toml"
    path.write_text(text, encoding="utf-8")
    return path


def answers(path: Path) -> list[tuple[bytes, bytes, int]]:
    reel = Reel(path / "tape", "node")
    return [(reel.drive(k).tobytes(), reel.answer(k).tobytes(), int(reel.rows[k]["flags"])) for k in range(len(reel))]


class Noisy:
    """A node whose every answer is another one, unless told not to."""

    spec = SPEC

    def __init__(self, noise: float = 0.1) -> None:
        self.noise, self.calls = noise, 0

    def program(self, params: Tensor) -> None: ...

    def reset(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x / 2 + self.noise * self.calls

    def close(self) -> None: ...


def taped(path: Path, *drives: Tensor, noise: float = 0.1) -> tuple[Reel, list[Tensor]]:
    with Tape(path) as tape:
        tape.begin({})
        device = recorded(Noisy(noise), tape, "node", "", {})
        got = [device.forward(x) for x in drives]
    return reels(path)[0], got


def test_strict_gives_the_recorded_bits_and_stops_at_the_first_difference(tmp_path: Path) -> None:
    a, b, c = torch.rand(3, 4), torch.rand(3, 4), torch.rand(2, 4)
    reel, got = taped(tmp_path, a, b, c)
    device = replay(reel)
    assert device.spec.provenance == "replay"
    assert not isinstance(device, Streaming)
    assert torch.equal(device.forward(a), got[0])
    other = b.clone()
    other[1, 2] += 0.5
    with pytest.raises(ReplayDiffers, match="shot 2: the input differs") as caught:
        device.forward(other)
    said = str(caught.value)
    assert "1 of 12 values, by up to 0.5 V; the first at (1, 2)" in said
    assert "closest is shot 2, at 0.1443 V rms" in said
    with pytest.raises(ReplayDiffers, match=r"shape \(2, 4\) where \(3, 4\) was recorded"):
        device.forward(c)
    with pytest.raises(ReplayDiffers, match=r"no recorded input has the shape \(9, 9\)"):
        device.forward(torch.zeros(9, 9))
    with pytest.raises(OutOfRange):
        device.forward(torch.full((3, 4), float("nan")))
    assert torch.equal(device.forward(b), got[1])  # a refusal moves nothing
    device.reset()
    with pytest.raises(ReplayDiffers, match=r"a reset\(\) before it"):
        device.forward(c)
    device = replay(reel)
    for x in (a, b, c):
        device.forward(x)
    with pytest.raises(TapeEnded, match="3 shots"):
        device.forward(a)


def test_looked_up_answers_come_in_their_order_and_none_twice(tmp_path: Path) -> None:
    a, b = torch.rand(3, 4), torch.rand(3, 4)
    reel, got = taped(tmp_path, a, b, a)
    device = replay(reel, "any")
    assert [torch.equal(device.forward(x), y) for x, y in ((a, got[0]), (a, got[2]), (b, got[1]))] == [True] * 3
    for x in (a, b):
        with pytest.raises(ReplayDiffers, match="more often than it was recorded"):
            device.forward(x)
    with pytest.raises(ReplayDiffers, match="never recorded") as caught:
        device.forward(a + 0.25)
    assert "closest is shot 1, at 0.25 V rms" in str(caught.value)


def test_a_node_that_the_tape_shows_to_be_quiet_may_be_asked_again(tmp_path: Path) -> None:
    a, b = torch.rand(3, 4), torch.rand(3, 4)
    reel, got = taped(tmp_path, a, b, a, noise=0.0)
    device = replay(reel, "any")
    assert all(torch.equal(device.forward(b), got[1]) for _ in range(5))
    once, _ = taped(tmp_path / "once", a, b, noise=0.0)  # nothing was recorded twice: nobody knows
    device = replay(once, "any")
    device.forward(a)
    with pytest.raises(ReplayDiffers, match="more often"):
        device.forward(a)


def test_a_temporal_answer_belongs_to_its_history(tmp_path: Path) -> None:
    with Tape(tmp_path) as tape:
        tape.begin({})
        array = RecorderChip(TwinChip(), tape, "").array(ArraySpec(6))
        x = torch.rand(2, 3, 6) * 2
        array.reset()
        got = [array.forward(x), array.forward(x)]
    chip = ReplayChip(reels(tmp_path), "any")
    device = chip.array(ArraySpec(6))
    device.reset()
    assert torch.equal(device.forward(x), got[0])
    assert torch.equal(device.forward(x), got[1])
    with pytest.raises(ReplayDiffers, match="another history since the reset"):
        device.forward(x)
    device.program(torch.ones(6))
    device.reset()
    with pytest.raises(ReplayDiffers):
        device.forward(x)
    with pytest.raises(ReplayDiffers, match="1 arrays"):
        chip.array(ArraySpec(6))
    with pytest.raises(ReplayDiffers, match="'size': 6"):
        ReplayChip(reels(tmp_path)).array(ArraySpec(7))


def test_a_run_is_repeated_and_what_differs_is_found(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "r"
    code, said = command("train", written(tmp_path, TWIN), "--run", folder)
    assert code == 0, said
    assert "a shot" in said
    assert "an epoch" in said
    code, said = command("replay", folder, "--run", tmp_path / "again")
    assert code == 0, said
    assert "identical: 45 shots, 4 metric lines, the weights of 3 checkpoints, results and diagnostics" in said
    again = json.loads((tmp_path / "again" / "summary.json").read_text(encoding="utf-8"))
    assert again["provenance"] == "replay"
    assert command("resume", tmp_path / "again")[0] == 2  # it would open the bench of the recorded run
    metrics = folder / "metrics.jsonl"
    kept = metrics.read_text(encoding="utf-8")
    metrics.write_text(kept.replace('"step": 16', '"step": 17', 1), encoding="utf-8")
    code, said = command("replay", folder)
    assert (code, "step (train of epoch 2) is 16, 17 was recorded" in said) == (3, True), said
    metrics.write_text(kept, encoding="utf-8")
    code, said = command("replay", folder, "--set", "optimizer.lr=0.1")
    assert (code, "never recorded" in said, "after step 1" in said) == (3, True, True), said
    config = folder / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("lr = 0.001", "lr = 0.002"), encoding="utf-8")
    code, said = command("replay", folder)
    assert (code, said.count("the input differs from what was recorded")) == (3, 1), said
    chunk_path(folder / "tape" / "node", "output", 0).unlink()
    code, said = command("replay", folder)
    assert (code, "missing chunk" in said) == (2, True), said


def test_another_learner_behind_a_fixed_layer(tmp_path: Path, command: Command) -> None:
    text = TWIN.replace("[64, 12, 12, 10]", "[64, 12, 10]").replace('"adfa"', '"last_layer"')
    assert command("train", written(tmp_path, text), "--run", tmp_path / "r")[0] == 0
    code, said = command("replay", tmp_path / "r", "--set", "optimizer.lr=0.03", "--set", "optimizer.use=SGD")
    assert (code, "Every input was recorded" in said) == (0, True), said
    code, said = command("replay", tmp_path / "r", "--set", "learner.use=adfa")
    assert (code, "never recorded" in said, "closest is shot" in said) == (3, True, True), said
    code, said = command("replay", tmp_path / "r", "--set", "device.use=mach_zehnder")
    assert (code, "on its tape" in said) == (2, True), said


def test_killed_and_resumed_is_the_same_tape(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("input", "output"):
        monkeypatch.setitem(
            cast(dict[str, tuple[int, ...]], CHUNKS), name, (2_000,)
        )  # full before the next flush, so that a tail is torn
    (tmp_path / "mortal_on_tape.py").write_text(SUICIDE, encoding="utf-8")
    text = TWIN.replace('"adfa"', '"mortal_on_tape:Mortal"').replace("batch = 32", "batch = 32\ncheckpoint_every = 3")
    path = written(tmp_path, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    killed = Commanded("train", path, "--run", tmp_path / "r", environment={"DIES_AT": "13"})
    assert killed.ended() == -signal.SIGKILL, killed.said()
    torn = len(Reel(tmp_path / "r" / "tape", "node"))
    assert torn > 1 + 2 * 12  # the sweep, and more than the twelve steps of the newest checkpoint
    code, said = command("replay", tmp_path / "r")  # as far as it goes
    assert (code, "the tape ends after step 1" in said) == (0, True), said
    code, said = command("resume", tmp_path / "r")
    assert code == 0, said
    assert command("train", path, "--run", tmp_path / "whole")[0] == 0
    assert answers(tmp_path / "r") == answers(tmp_path / "whole")
    code, said = command("replay", tmp_path / "r")
    assert (code, "identical: 45 shots" in said) == (0, True), said


def test_no_tape_no_replay(tmp_path: Path, command: Command) -> None:
    assert command("train", written(tmp_path, SPIKES), "--run", tmp_path / "r")[0] == 0
    assert not (tmp_path / "r" / "tape").exists()
    code, said = command("replay", tmp_path / "r")
    assert (code, "--record" in said) == (2, True), said


@pytest.mark.parametrize("bench", ["mzm_awg_scope", "spiking_board"])
def test_a_served_bench_is_not_needed_again(
    tmp_path: Path, command: Command, bench: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.toml").write_text((ROOT / "benches" / f"{bench}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    if bench == "spiking_board":
        text = SPIKES.replace('chip = "lif"', 'bench = "b.toml"')
    else:
        text = TWIN.replace('use = "mach_zehnder"\nv_pi = "3.5 V"', 'bench = "b.toml"').replace("epochs = 2", "epochs = 1")
        text = text.replace("pieces = 1", "pieces = 2")
    code, said = command("train", written(tmp_path, text), "--record", "--run", tmp_path / "r")
    assert code == 0, said

    def never(*_: object) -> None:
        raise AssertionError("a bench was opened")

    for module, name in (
        (opening, "open_bench"), (waveform, "spawn"), (spiking, "spawn_board"), (opening, "VisaLink"), (spiking, "SerialLink"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, never)
    assert all(reel.head.streaming == (bench == "mzm_awg_scope") for reel in reels(tmp_path / "r" / "tape"))
    code, said = command("replay", tmp_path / "r")
    assert (code, "identical" in said) == (0, True), said


def test_the_sweep_that_only_judges_the_twin_is_repeated_too(tmp_path: Path, command: Command) -> None:
    """With [decode] given, the transfer curve is measured for the twin check alone; it is on the tape, and in the count."""
    given = TWIN + '[decode]\nzero = "0.18 V"\nscale = "0.18 V"\n'
    code, said = command("train", written(tmp_path, given), "--run", tmp_path / "r")
    assert code == 0, said
    found = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert found["twin_honesty"]["correlation"] > 0.9999
    assert answers(tmp_path / "r")[0][0] == torch.linspace(-5, 5, 201).repeat(8, 1).numpy().tobytes()
    code, said = command("replay", tmp_path / "r")
    assert code == 0, said
    assert "identical" in said
    code, said = command("train", written(tmp_path, TWIN), "--run", tmp_path / "measured")
    assert (
        json.loads((tmp_path / "measured" / "summary.json").read_text(encoding="utf-8"))["device_passes"]
        == found["device_passes"]
    )
