from __future__ import annotations

import json
from pathlib import Path

import pytest

from hil.errors import RunError
from hil.run.folder import RunFolder, write_atomic


def test_a_run_folder_is_new_or_refused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    folder.config.write_text("seed = 0")
    (folder.checkpoints / "step-00000001.json").write_text("{}")
    with pytest.raises(RunError, match="hil resume"):
        RunFolder.create(tmp_path / "a")
    assert RunFolder.open(tmp_path / "a").config.exists()
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.open(tmp_path / "b")


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_atomic(path, b"old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_metrics_after_the_checkpoint_are_made_again(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    for step in (10, 20, 30):
        folder.measure({"step": step})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')  # torn by a kill
    folder.forget_metrics_after(20)
    assert [json.loads(line)["step"] for line in (folder.path / "metrics.jsonl").read_text().splitlines()] == [10, 20]


def test_damaged_json_is_named(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    assert folder.read_json("summary.json") == {}
    (folder.path / "summary.json").write_text("{")
    with pytest.raises(RunError, match=r"summary\.json"):
        folder.read_json("summary.json")
