"""[device] use = "my_lab:Rig": a device of one's own from a file, whatever ends the trainer or the rig."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from hil import child
from hil.cli import run as hil_run
from hil.run import checkpoint

SILENCE_S = 3.0
RIG = '''
import os, time
import torch
import hil

class Rig:
    """Eight channels; notes each row that it drives in a file, and does what `fault` says at the row that it names."""

    def __init__(self, log: str, fault: str = "", high_v: float = 2.0, row_s: float = 0.0) -> None:
        self.spec = hil.Spec(hil.Port("dac", -high_v, high_v, "V", 8), hil.Port("adc", -1, 1, "V", 8), provenance="real")
        self.log, self.fault, self.rows, self.row_s = log, fault, 0, row_s

    def note(self, row):
        with open(self.log, "a") as file:
            file.write(f"{time.monotonic():.3f} {max(abs(v) for v in row):g}\\n")

    def forward(self, x):
        for row in x.tolist():
            self.note(row)
            time.sleep(self.row_s)
            self.rows += 1
            for fault in self.fault.split():
                if self.rows == 300 and not os.path.exists(self.log + fault):
                    open(self.log + fault, "w").close()
                    {"hang": lambda: time.sleep(600), "abort": os.abort, "raise": lambda: 1 / 0}[fault]()
        return torch.tanh(x)

    def safe(self):
        self.note([0.0])

    def close(self):
        self.safe()

class Half:
    """Can be driven, and never closed."""

    def forward(self, x):
        return x

class Unsafe:
    """No way to make it safe."""
    spec = hil.Spec(hil.Port("dac", -1, 1, "V", 8), hil.Port("adc", -1, 1, "V", 8))

    def forward(self, x):
        return x.clone()

    def close(self):
        pass
'''
FILE = """
seed = 1
[data]
train_examples = 96
[network]
widths = [64, 8, 10]
[device]
use = "my_lab:Rig"
log = "{log}"
high = "2 V"
[device.guardian]
silence_s = {silence_s}
deadline_s = 3.0
[encode]
overflow = "clip"
[decode]
zero = "0 V"
scale = 1.0
[learner]
use = "adfa"
[train]
epochs = 3
batch = 32
threads = 1
checkpoint_every = 1
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "my_lab.py").write_text(RIG, encoding="utf-8")
    (tmp_path / "rig.toml").write_text(FILE.format(silence_s=SILENCE_S, log=tmp_path / "rig.log"), encoding="utf-8")
    return tmp_path


def started(lab: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*child.command("hil"), *arguments], cwd=lab, env=child.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def driven(lab: Path, name: str = "rig.log") -> list[tuple[float, float]]:
    """Time and largest volt of each row that was driven."""
    log = lab / name
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [(float(a), float(b)) for a, b in (line.split() for line in lines)]


def soon(true: Callable[[], object], within_s: float = 30.0) -> bool:
    end = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(max((run / "checkpoints").glob("step-*.json"))).tensors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What an undisturbed run comes to."""
    lab = tmp_path_factory.mktemp("whole")
    (lab / "my_lab.py").write_text(RIG, encoding="utf-8")
    (lab / "rig.toml").write_text(FILE.format(silence_s=SILENCE_S, log=lab / "rig.log"), encoding="utf-8")
    code = hil_run(["train", str(lab / "rig.toml"), "--run", str(lab / "r")])
    assert code == 0
    summary = json.loads((lab / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"] == "real"
    assert (lab / "r" / "report.html").exists()
    assert driven(lab)[-1][1] == 0.0
    return weights(lab / "r")


def at_zero_after(lab: Path, sent: signal.Signals, meanwhile: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
    """Train, and end or stop the trainer while it drives; the rig is at zero within silence_s + 2 s, and stays there.

    Exit code of the trainer, and what it said; one that was stopped goes on.
    """
    trainer = started(lab, "train", "rig.toml", "--run", "r", "--set", "device.row=5 ms")
    try:
        assert soon(lambda: len(driven(lab)) > 300), trainer.communicate()
        meanwhile(trainer.pid)
        os.kill(trainer.pid, sent)
        assert soon(lambda: driven(lab)[-1][1] == 0.0, SILENCE_S + 2.0)
        time.sleep(0.5)
        assert driven(lab)[-1][1] == 0.0
        os.kill(trainer.pid, signal.SIGCONT)
        return trainer.wait(30), trainer.communicate()[0]
    finally:
        if trainer.poll() is None:
            trainer.kill()
            trainer.communicate()


def test_a_trainer_that_is_killed_leaves_the_rig_at_zero_and_is_resumed_bit_for_bit(
    lab: Path, whole: dict[str, torch.Tensor]
) -> None:
    assert at_zero_after(lab, signal.SIGKILL)[0] == -signal.SIGKILL
    assert hil_run(["resume", str(lab / "r")]) == 0
    assert all(torch.equal(value, whole[name]) for name, value in weights(lab / "r").items())


def test_a_trainer_that_hangs_leaves_the_rig_at_zero_and_had_it_alone(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(pid: int) -> None:
        more = ["--set", "device.guardian.patience_s=0.1"]
        assert hil_run(["train", str(lab / "rig.toml"), "--run", str(lab / "other"), *more]) == 2
        assert f"process {pid}" in capsys.readouterr().err

    code, said = at_zero_after(lab, signal.SIGSTOP, refused)
    assert code == 3
    assert "because nothing was heard" in said
    events = [json.loads(line) for line in (lab / "r" / "host.jsonl").read_text(encoding="utf-8").splitlines()]
    assert events[-1]["outputs"] == "safe"
    assert "silence" in [event["event"] for event in events]


def test_a_rig_that_hangs_and_then_crashes_is_made_safe_and_each_shot_repeated(
    lab: Path, whole: dict[str, torch.Tensor]
) -> None:
    assert hil_run(["train", str(lab / "rig.toml"), "--run", str(lab / "r"), "--set", "device.fault=hang abort"]) == 0
    summary = json.loads((lab / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["faults_recovered"] == 2
    rows = [volts for _, volts in driven(lab)]
    assert sum(volts == 0.0 and later > 0.0 for volts, later in pairwise(rows)) >= 2  # at zero, then driven again
    assert all(torch.equal(value, whole[name]) for name, value in weights(lab / "r").items())


def test_an_exception_of_the_rig_ends_the_run_safely_and_names_its_line(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hil_run(["train", str(lab / "rig.toml"), "--run", str(lab / "r"), "--set", "device.fault=raise"]) == 3
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "my_lab.py" in said
    assert driven(lab)[-1][1] == 0.0


def test_a_rig_that_nobody_can_make_safe_is_refused_unless_the_file_says_so(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here with a twin, which the file gives, for a learner that needs one."""
    (lab / "my_twin.py").write_text(TWIN, encoding="utf-8")
    text = (lab / "rig.toml").read_text(encoding="utf-8").replace("my_lab:Rig", "my_lab:Unsafe").replace('"adfa"', '"pat"')
    lines = [line for line in text.splitlines() if not line.startswith(("log", "high"))]
    lines.insert(lines.index("[encode]"), '[device.twin]\nuse = "my_twin:Tanh"')
    (lab / "rig.toml").write_text("\n".join(lines), encoding="utf-8")
    assert hil_run(["train", str(lab / "rig.toml"), "--run", str(lab / "r")]) == 2
    assert "safe()" in capsys.readouterr().err
    more = ["--set", "device.unguarded=true", "--set", "train.epochs=1"]
    assert hil_run(["train", str(lab / "rig.toml"), "--run", str(lab / "r"), *more]) == 0
    summary = json.loads((lab / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["node"]["unguarded"] is True
    assert "nobody can make this device safe if the trainer ends" in capsys.readouterr().out


@pytest.mark.slow
def test_two_rigs_in_two_hosts_one_of_which_is_killed_and_then_the_trainer(lab: Path) -> None:
    text = (lab / "rig.toml").read_text(encoding="utf-8").replace("[64, 8, 10]", "[64, 8, 8, 10]")
    head, _, tail = text.partition("[device]\n")
    table, _, tail = tail.partition("[encode]")
    one = table.replace("[device.guardian]", 'row = "5 ms"\n[device.guardian]')
    two = one.replace("rig.log", "other.log")
    (lab / "rig.toml").write_text(f"{head}[[device]]\n{one}[[device]]\n{two}[encode]{tail}", encoding="utf-8")
    trainer = started(lab, "train", "rig.toml", "--run", "r", "--set", "train.epochs=1000")
    try:
        assert soon(lambda: len(driven(lab, "other.log")) > 100), trainer.communicate()
        events = [json.loads(line) for line in (lab / "r" / "host-2.jsonl").read_text(encoding="utf-8").splitlines()]
        os.kill(events[0]["pid"], signal.SIGKILL)
        journal = lab / "r" / "journal.jsonl"
        assert soon(lambda: '"recovery"' in journal.read_text(encoding="utf-8"))
        assert any(volts == 0.0 for _, volts in driven(lab, "other.log")[100:])  # its worker made it safe
        before = len(driven(lab, "other.log"))
        assert soon(lambda: len(driven(lab, "other.log")) > before + 50)
    finally:
        if trainer.poll() is None:
            trainer.kill()
            trainer.communicate()
    assert soon(lambda: driven(lab)[-1][1] == driven(lab, "other.log")[-1][1] == 0.0, SILENCE_S + 2.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("my_lab:Rig", "my_lab:Nobody"), "Nobody"),
        (("my_lab:Rig", "my_lab:Half"), "neither a Twin nor a Device"),
        (('high = "2 V"', 'high = "2 A"'), "high"),
        (('high = "2 V"', 'hihg = "2 V"'), "high"),
        (("[device.guardian]", "[device.recovery]\npatience_s = -1\n[device.guardian]"), "patience_s"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_opened(
    lab: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
) -> None:
    text = (lab / "rig.toml").read_text(encoding="utf-8").replace(*change)
    (lab / "rig.toml").write_text(text, encoding="utf-8")
    assert hil_run(["train", str(lab / "rig.toml"), "--run", str(lab / "r")]) == 2
    assert said in capsys.readouterr().err
    assert not driven(lab)


TWIN = """
import torch
import hil

class Tanh(torch.nn.Module):
    spec = hil.Spec(hil.Port("dac", -2, 2, "V", 8), hil.Port("adc", -1, 1, "V", 8), provenance="twin")

    def rest(self, batch, rng):
        return ()

    def respond(self, state, params, x, rng):
        return torch.tanh(x), state

    def ideal(self, x):
        return torch.tanh(x)
"""
