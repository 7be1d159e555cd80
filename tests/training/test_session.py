"""When a run is committed, what a fault leaves behind, and what a run says of its faults."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hil.data.dataset import load, subset
from hil.device import Recovering, Spec
from hil.devices.meter import metered
from hil.encoding import Decode, Encode
from hil.errors import Disconnected, Interrupted, OutOfRange, RunError, Stopped
from hil.learners.adfa import ADFA, ADFASettings
from hil.network import Layer, Network
from hil.run import checkpoint
from hil.run.folder import RunFolder
from hil.run.journal import Journal
from hil.run.signals import Stopping
from hil.run.summary import Labels
from hil.training import disk_space
from hil.training.session import Session
from hil.training.state import Training, TrainingPlan
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

LABELS = Labels("none", "twin", {}, {})


class Faulty:
    """A node that recovers from a fault at every third shot, and dies at shot `dies`; real if its state cannot be saved."""

    def __init__(self, dies: int, real: bool) -> None:
        self._inner, self._dies, self._real = Simulated(MachZehnder()), dies, real
        self.shots = self.recovered = 0

    @property
    def spec(self) -> Spec:
        return self._inner.spec

    def program(self, params: Tensor) -> None:
        self._inner.program(params)

    def reset(self) -> None:
        self._inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        self.shots += 1
        self.recovered += self.shots % 3 == 0
        if self.shots == self._dies:
            raise Disconnected("the other end closed", where="scope")
        return self._inner.forward(x)

    def close(self) -> None:
        pass

    def snapshot(self) -> Mapping[str, object]:
        return {} if self._real else self._inner.snapshot()

    def restore(self, state: Mapping[str, object]) -> None:
        self._inner.restore(state)


def training(device: Faulty | Simulated, batch: int = 8) -> Training:
    torch.manual_seed(0)
    node = metered(device)
    net = Network(
        [Layer(nn.Linear(64, 6), node, Encode.onto(node.spec.inputs, 0.3, overflow="clip"), Decode(0.18, 0.18)),
         Layer(nn.Linear(6, 10))]
    )  # fmt: skip
    rule = ADFA.build(net, ADFASettings(), 10, torch.Generator().manual_seed(0), None)
    data = subset(load("digits"), 80)
    return Training(net, rule, torch.optim.SGD(net.parameters(), 0.1), data, TrainingPlan(0, 2, batch), (node,))


def events(folder: RunFolder, kind: str) -> list[dict[str, object]]:
    folder.journal.close()
    return [record for record in Journal.read(folder.path / "journal.jsonl") if record["kind"] == kind]


def test_a_checkpoint_every_so_many_seconds(tmp_path: Path) -> None:
    folder, made, now = RunFolder.create(tmp_path / "r"), training(Simulated(MachZehnder())), [0.0]
    session = Session(made, folder, LABELS, every_s=60.0, clock=lambda: now[0])
    session.begin()

    def slow(point: object) -> None:
        now[0] += 25.0

    session.run(Stopping(), slow)
    steps = [(event["step"], event["batch"]) for event in events(folder, "checkpoint")]
    assert steps == [(0, 0), (3, 3), (6, 6), (9, 9), (10, 0), (13, 3), (16, 6), (19, 9), (20, 0)]
    assert [event["step"] for event in events(folder, "commit")] == list(range(1, 21))
    assert len(checkpoint.listed(folder.checkpoints)) == 3


@pytest.mark.parametrize("real", [False, True])
def test_a_fault_within_a_step(tmp_path: Path, real: bool) -> None:
    """The state of a simulated node has gone on: only the checkpoint before is exact. A real one is where it is."""
    folder, made = RunFolder.create(tmp_path / "r"), training(Faulty(5, real))
    told: list[tuple[str, str]] = []
    session = Session(made, folder, LABELS, every=3, tell=lambda kind, message: told.append((kind, message)))
    session.begin()
    with pytest.raises(Stopped) as caught:
        session.run(Stopping(), lambda point: None)
    newest = checkpoint.latest(folder.checkpoints).stem
    assert "after step 4" in str(caught.value)
    assert newest == ("step-00000004" if real else "step-00000003")
    assert ("which is committed" if real else "so the newest checkpoint is step-00000003") in str(caught.value)
    summary = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "fault"
    assert "the other end closed" in summary["cause"]
    assert summary["faults_recovered"] == 1
    assert told == [("recovered", "1 fault recovered by step 3, 1 in all")]
    assert [event["in_all"] for event in events(folder, "recovered")] == [1]


def test_recovered_faults_are_counted_and_kept(tmp_path: Path) -> None:
    device = Faulty(10**9, True)
    assert isinstance(device, Recovering)
    folder, made = RunFolder.create(tmp_path / "r"), training(device)
    session = Session(made, folder, LABELS)
    session.begin()
    summary = session.run(Stopping(), lambda point: None)
    assert summary["faults_recovered"] == made.faults_recovered == device.recovered > 5
    other = training(Faulty(10**9, True))
    other.restore(checkpoint.load(checkpoint.latest(folder.checkpoints)))
    before = other.faults_recovered
    assert made.faults_recovered - 1 <= before <= made.faults_recovered  # the test split was read after that checkpoint
    for _ in range(3):
        other.devices[0].forward(torch.zeros(1, 6))
    assert other.faults_recovered == before + 1


def test_no_room_is_refused_and_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, made = RunFolder.create(tmp_path / "r"), training(Simulated(MachZehnder()))
    one = disk_space.checkpoint_bytes(made)
    path = checkpoint.save(folder.checkpoints, "step-00000000", made.checkpoint())
    assert path.with_suffix(".safetensors").stat().st_size < one
    free = [0]
    monkeypatch.setattr(RunFolder, "free_bytes", property(lambda self: free[0]))
    with pytest.raises(RunError, match="no room for a checkpoint"):
        disk_space.check(folder, made)
    free[0] = 2 * one + disk_space.MARGIN_BYTES
    assert "little room" in disk_space.check(folder, made)
    free[0] = 1 << 40
    assert disk_space.check(folder, made) == ""


class Ending(Faulty):
    """At shot 5 something ends the run: `end`."""

    def __init__(self, end: Callable[[], None]) -> None:
        super().__init__(dies=0, real=True)
        self._end = end

    def forward(self, x: Tensor) -> Tensor:
        answer = super().forward(x)
        if self.shots == 5:
            self._end()
        return answer


ENDINGS = [
    None, Disconnected("gone"), OutOfRange("too much"), RunError("full"), Interrupted("asked to"), KeyboardInterrupt(),
    ZeroDivisionError(),
]  # fmt: skip


@pytest.mark.parametrize("error", ENDINGS)
def test_outputs_go_off_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None
) -> None:
    """error: what ends the run; None: a signal that asks it to stop."""
    stopping, did = Stopping(), list[str]()

    def end() -> None:
        did.append("end")
        stopping.asked = "SIGTERM"
        if error is not None:
            stopping.asked = ""
            raise error

    written = os.write
    folder, made = RunFolder.create(tmp_path / "r"), training(Ending(end))
    session = Session(made, folder, LABELS, every=1, rest=lambda error: did.append("rest"))
    session.begin()

    def write(file: int, data: bytes) -> int:
        did.append("write")
        return written(file, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(BaseException) as caught:
        session.run(stopping, lambda point: None)
    assert type(caught.value) in (Stopped, Interrupted, type(error))
    assert did[did.index("end") + 1] == "rest"
    assert did.index("write") < did.index("end"), "nothing is written at all"
