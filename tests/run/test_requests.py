"""What another process asks of a run: pause, resume, stop, off; through a virtual bench whose instruments say what they did."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import ROOT
from safetensors.torch import load_file
from small import Command, toml

from hil.errors import RunError
from hil.learners.adfa import ADFA
from hil.run import control, glance
from hil.run.control import ask, read
from hil.run.folder import RunFolder
from hil.run.index import Index
from hil.run.lock import owner
from hil.run.signals import Stopping

BENCH = f'bench = "{ROOT / "benches" / "mzm_awg_scope.toml"}"'
TWIN = 'use = "mach_zehnder"\nv_pi = "3.5 V"'
WITHIN_S = 100.0
pytestmark = pytest.mark.timeout(400)  # processes are started, and benches opened
Start = Callable[..., Command]


def experiment(tmp_path: Path, device: str = BENCH, epochs: int = 2) -> Path:
    path = tmp_path / "e.toml"
    path.write_text(toml(192, device=device, train=f"epochs = {epochs}\nbatch = 16\nthreads = 1"), encoding="utf-8")
    return path


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Commands that do not outlive the test."""
    begun: list[Command] = []

    def starting(*arguments: object, first: Callable[[], object] = lambda: None) -> Command:
        begun.append(Command(*arguments, first=first))
        return begun[-1]

    yield starting
    for command in begun:
        if command.poll() is None:
            command.send(signal.SIGKILL)
            command.ended()


def slowly() -> None:
    """Steps of a command that take their time, so that it is asked before it is done."""
    inner = ADFA.step

    def step(*arguments: Any) -> object:
        time.sleep(0.1)
        return inner(*arguments)

    ADFA.step = step  # type: ignore[method-assign, assignment]


def soon(holds: Callable[[], object], within_s: float = WITHIN_S) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def told(run: Path) -> list[dict[str, object]]:
    path = run / "journal.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def step(run: Path) -> int:
    return int(glance.told(run).commit.get("step", 0))


def switched(run: Path) -> list[bool]:
    """What the simulated generator did to its output, in order."""
    lines = [json.loads(line) for line in (run / "bench.log").read_text(encoding="utf-8").splitlines()]
    return [line["on"] for line in lines if "on" in line]


def entry(run: Path) -> tuple[str, str]:
    (found,) = Index([run]).entries()
    return found.state, found.outputs


def same(run: Path, other: Path) -> bool:
    one, two = (load_file(each / "checkpoints" / "best.safetensors") for each in (run, other))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_pause_makes_safe_and_the_run_goes_on_bit_for_bit(tmp_path: Path, start: Start) -> None:
    path, run, whole = experiment(tmp_path, epochs=3), tmp_path / "paused", tmp_path / "whole"
    trainer = start("train", path, "--run", run, first=slowly)
    soon(lambda: step(run) >= 15)  # in the middle of an epoch
    assert entry(run) == ("at work", "on")
    assert ask(run, "pause", "the test") == ""
    soon(lambda: entry(run) == ("paused", "off, read back"))
    said = [r for r in told(run) if r["kind"] in ("asked", "pause", "safe")]
    assert [r["kind"] for r in said] == ["asked", "pause", "safe"]
    assert (said[0]["what"], said[0]["by"]) == ("pause", "the test")
    assert switched(run) == [True, False]
    here = step(run)
    with pytest.raises(RunError, match="paused already"):
        ask(run, "pause")
    time.sleep(3 * control.LOOK_S)
    assert (step(run), trainer.poll()) == (here, None)
    assert start("resume", run).ended() == 0  # asks the process that waits
    assert trainer.ended(WITHIN_S) == 0, trainer.said()
    assert start("train", path, "--run", whole).ended() == 0
    assert same(run, whole)
    assert entry(run) == ("done", "off, read back")


def test_a_stop_is_the_first_ctrl_c_and_a_pause_ends_by_it(tmp_path: Path, start: Start) -> None:
    run = tmp_path / "r"
    trainer = start("train", experiment(tmp_path, TWIN, epochs=400), "--run", run)
    soon(lambda: step(run) > 3)
    asker = start("pause", run)
    assert asker.ended() == 0, asker.said()
    assert "none (twin)" in asker.said()
    assert start("stop", run).ended() == 0
    assert trainer.ended() == 130, trainer.said()
    assert entry(run)[0] == "interrupted"
    again = start("resume", run)
    soon(lambda: glance.told(run).last == "resume")
    assert start("stop", run).ended() == 0
    assert again.ended() == 130
    assert [r["what"] for r in told(run) if r["kind"] == "asked"] == ["pause", "stop", "stop"]


def test_off_is_at_once(tmp_path: Path, start: Start) -> None:
    run = tmp_path / "r"
    trainer = start("train", experiment(tmp_path, epochs=50), "--run", run)
    soon(lambda: step(run) > 3)
    asker = start("off", run)
    assert asker.ended() == 0
    assert "off, read back" in asker.said()
    assert trainer.ended() == 130, trainer.said()
    assert switched(run) == [True, False]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["cause"] == "stopped at once by hil off"
    assert entry(run) == ("interrupted", "off, read back")


def test_off_of_a_trainer_that_hangs_is_done_by_its_guardian(tmp_path: Path, start: Start) -> None:
    run = tmp_path / "r"
    trainer = start("train", experiment(tmp_path, epochs=50), "--run", run)
    soon(lambda: step(run) > 3)
    trainer.send(signal.SIGSTOP)
    assert ask(run, "off", off_s=0.5) == glance.OFF
    assert trainer.ended() == -signal.SIGKILL
    assert switched(run)[-1] is False
    assert entry(run) == ("dead", "off, read back")


def test_killed_while_it_is_paused_it_is_resumed_as_any_other(tmp_path: Path, start: Start) -> None:
    path, run, whole = experiment(tmp_path, TWIN, epochs=10), tmp_path / "r", tmp_path / "whole"
    trainer = start("train", path, "--run", run, first=slowly)
    soon(lambda: step(run) > 3)
    ask(run, "pause")
    soon(lambda: entry(run)[0] == "paused")
    trainer.send(signal.SIGKILL)
    assert trainer.ended() == -signal.SIGKILL
    assert entry(run)[0] == "interrupted"
    assert start("resume", run).ended() == 0
    assert start("train", path, "--run", whole).ended() == 0
    assert same(run, whole)


# ---- who may ask, and what is obeyed ----------------------------------------------------------------------------------------


def test_nobody_at_work_is_asked_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no process is at work"):
        ask(RunFolder.create(tmp_path / "r").path, "stop")
    with pytest.raises(RunError, match="no process is at work"):
        ask(tmp_path / "none", "off")


def test_the_run_of_another_account_can_only_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "r")
    with folder.owned():
        assert control.refusal(folder.path) is None
        monkeypatch.setattr(control, "own", lambda facts: False)
        with pytest.raises(RunError, match="another account"):
            ask(folder.path, "stop")
        monkeypatch.undo()
        monkeypatch.setattr(control, "started_s", lambda pid: time.time() + 60)  # the pid was given away since
        with pytest.raises(RunError, match="cannot be told from a later one"):
            ask(folder.path, "off")
    assert not (folder.path / control.NAME).exists()


def test_a_run_of_a_script_is_not_paused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "r")
    folder.write_config('python = "train.py"\n')
    with folder.owned(), pytest.raises(RunError, match="script"):
        ask(folder.path, "pause")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pid": 1}, "another process"), ({"since": "2026-01-01T00:00:00+00:00"}, "another process"),
        ({"what": "rm"}, "unknown word"), ({"id": 7}, "unknown word"), ({"by": None}, "unknown word"), (None, "damaged"),
    ],
)  # fmt: skip
def test_what_is_not_obeyed(tmp_path: Path, change: dict[str, object] | None, why: str) -> None:
    path, facts = tmp_path / control.NAME, {"id": "x", "what": "stop", "by": "\x1b[31mme", "pid": os.getpid(), "since": "now"}
    path.write_text(json.dumps(facts), encoding="utf-8")
    path.chmod(0o600)
    request, said = read(path, os.getpid(), "now")
    assert request is not None
    assert (request.what, request.by, said) == ("stop", "\\x1b[31mme", "")
    path.write_text("{" if change is None else json.dumps({**facts, **change}), encoding="utf-8")
    assert read(path, os.getpid(), "now")[0] is None
    assert why in read(path, os.getpid(), "now")[1]


def test_a_file_that_others_may_write_or_a_link_is_not_obeyed(tmp_path: Path) -> None:
    facts = {"id": "x", "what": "stop", "by": "me", "pid": os.getpid(), "since": "now"}
    path, other = tmp_path / control.NAME, tmp_path / "other"
    path.write_text(json.dumps(facts), encoding="utf-8")
    path.chmod(0o666)
    assert "may write" in read(path, os.getpid(), "now")[1]
    path.unlink()
    os.mkfifo(path)
    assert read(path, os.getpid(), "now")[0] is None
    assert not other.exists()


def test_the_thread_obeys_each_request_once_and_notes_it(tmp_path: Path) -> None:
    folder, stopping = RunFolder.create(tmp_path / "r"), Stopping()
    with folder.owned(), control.Listening(folder.path, stopping, folder.note, pausable=True):
        ask(folder.path, "pause", "one")
        soon(lambda: stopping.pausing == "one")
        soon(lambda: len(told(folder.path)) == 1)
        held = owner(folder.path)
        assert held is not None
        stopping.asks("resume", "two")
        os.utime(folder.path / control.NAME)  # the same request, touched
        time.sleep(3 * control.LOOK_S)
        assert stopping.pausing == ""
        assert [r["by"] for r in told(folder.path)] == ["one"]
