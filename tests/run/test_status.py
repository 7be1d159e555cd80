"""hil status: from files alone, of runs that live, ended, died or are damaged."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from hil.cli import run
from hil.errors import RunError
from hil.run import status
from hil.run.folder import RunFolder
from hil.run.journal import Journal

BEGIN = datetime.fromisoformat("2026-11-25T10:00:00+00:00").timestamp()


def told(path: Path, *events: tuple[float, str, dict[str, object]]) -> RunFolder:
    """A run folder with a journal of (s since the start, kind, facts)."""
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    folder.config.write_text("seed = 0\n")
    now = [0.0]

    def moment() -> str:
        return datetime.fromtimestamp(BEGIN + now[0]).astimezone().isoformat(timespec="milliseconds")

    journal = Journal(path / "journal.jsonl", now=moment)
    for at, kind, facts in events:
        now[0] = at
        if kind == "commit":
            journal.commit(**facts)  # type: ignore[arg-type]
        else:
            journal.note(kind, **facts)
    journal.close()
    return folder


def commit(step: int, device_s: float = 0.0) -> dict[str, object]:
    return {"step": step, "epoch": (step - 1) // 10 + 1, "batch": (step - 1) % 10 + 1, "loss": 1 / step, "passes": step,
            "device_s": device_s}  # fmt: skip


START = (0.0, "start", {"epochs": 4, "batches_per_epoch": 10})
STEPS = [(1.0 + step, "commit", commit(step, 0.25 * step)) for step in range(1, 16)]
EPOCH = (11.5, "epoch", {"epoch": 1, "step": 10, "accuracy": 0.5, "loss": 1.0})


def read(folder: RunFolder, at: float = 20.0) -> status.Status:
    return status.read(folder.path, now=lambda: BEGIN + at)


def test_a_run_at_work(tmp_path: Path) -> None:
    folder = told(tmp_path / "r", START, *STEPS[:10], EPOCH, *STEPS[10:], (16.5, "recovered", {"step": 15, "in_all": 2}))
    with folder.owned():
        found = read(folder)
        assert found.state == "training"
        assert (found.epoch, found.epochs, found.step, found.steps) == (2, 4, 15, 40)
        assert found.best == (0.5, 1)
        assert found.device_share == pytest.approx(0.25)
        assert found.left_s == pytest.approx(25.0)
        assert found.commit_age_s == pytest.approx(4.0)
        assert found.recovered == 2
        assert found.health == "shaky, last fault 4 s ago"
        assert found.owner is not None
        assert found.owner.alive
        text = "\n".join(status.lines(found))
        for part in (
            "training, by process",
            "epoch 2/4",
            "step 15/40",
            "device 25%",
            "faults recovered 2",
            "left    about 25 s",
        ):
            assert part in text
    assert read(folder).state.startswith("dead")
    assert "hil resume" in read(folder).again


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "opening"),
        ([START, *STEPS[:10]], "validating"),
        ([START, *STEPS[:10], EPOCH], "training"),
        ([START, *STEPS[:5], (7.0, "recovering", {"message": "reopening the scope"})], "recovering"),
        ([(0.0, "start", {"epochs": 1, "batches_per_epoch": 10}), *STEPS[:10], EPOCH], "testing"),
        ([START, *STEPS[:5], (7.0, "fault", {"message": "x"})], "stopping"),
    ],
)
def test_what_a_live_run_is_doing(tmp_path: Path, events: list[tuple[float, str, dict[str, object]]], state: str) -> None:
    folder = told(tmp_path / "r", *events)
    with folder.owned():
        assert read(folder).state == state


@pytest.mark.parametrize(
    ("last", "state"),
    [("interrupt", "interrupted"), ("fault", "fault"), ("unsafe", "unsafe"), ("resume", "dead: gone without a word")],
)
def test_how_a_run_ended(tmp_path: Path, last: str, state: str) -> None:
    folder = told(tmp_path / "r", START, *STEPS[:5], (9.0, last, {"step": 3, "message": "so it was"}))
    found = read(folder)
    assert found.state == state
    assert found.step == (3 if last == "resume" else 5)
    assert list(status.lines(found))


def test_the_newest_run_and_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no runs here"):
        status.newest(Path("runs"))
    assert run(["status"]) == 2
    told(tmp_path / "runs" / "old", START)
    shutil.move(tmp_path / "runs" / "old" / "journal.jsonl", tmp_path / "runs" / "old" / "x")
    os.utime(tmp_path / "runs" / "old" / "config.toml", (1, 1))
    told(tmp_path / "runs" / "new", START, *STEPS, (20.0, "fault", {"message": "the scope\nis gone", "step": 15}))
    with (tmp_path / "runs" / "new" / "journal.jsonl").open("a") as file:
        file.write('{"t": "2026')
    capsys.readouterr()
    assert run(["status"]) == 0
    assert "runs/new" in capsys.readouterr().out
    assert run(["status", "runs/new", "--log"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "fault       the scope is gone; step 15" in lines[1]
    assert "step 15" in lines[2]
    assert "damaged" in lines[3]
    assert run(["status", "nowhere"]) == 2
    assert run(["list", "runs"]) == 0
    shown = capsys.readouterr().out
    assert "fault" in shown
    (tmp_path / "runs" / "new" / "summary.json").write_text(json.dumps([1]))
    assert run(["list", "runs"]) == 0
    assert "summary.json: a list" in capsys.readouterr().out
