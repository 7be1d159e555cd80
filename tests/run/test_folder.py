from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from hil.errors import RunError
from hil.files import write_atomic
from hil.run.folder import RunFolder
from hil.run.lock import owner


def test_a_run_folder_is_new_or_refused(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    folder.config.write_text("seed = 0", encoding="utf-8")
    (folder.checkpoints / "step-00000001.json").write_text("{}", encoding="utf-8")
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
    for epoch in (1, 2, 3):
        folder.measure(*({"epoch": epoch, "split": split, "step": 10 * epoch} for split in ("train", "validation")))
    path = folder.path / "metrics.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "split": "tr')  # torn by a kill
    assert folder.forget_metrics_after(2) == []
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == [10, 10, 20, 20]
    path.write_bytes(path.read_bytes().replace(b'"split": "validation", "step": 10', b'"split": \xff'))
    assert folder.forget_metrics_after(2) == [
        "metrics.jsonl: no readable line of epoch 1 (validation); the curves lack it",
    ]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_lines_that_do_not_fit_leave_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "a")
    folder.measure({"epoch": 1, "split": "train"})
    before = (folder.path / "metrics.jsonl").read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        folder.measure({"epoch": 2, "split": "train"})
    assert (folder.path / "metrics.jsonl").read_bytes() == before


def test_one_owner(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    assert owner(folder.path) is None
    with folder.owned():
        with folder.owned():  # the same one, again
            pass
        found = owner(folder.path)
        assert found is not None
        assert found.alive
        with pytest.raises(RunError, match="another process") as caught, RunFolder.open(_opened(folder)).owned():
            pass
        assert f"process {os.getpid()} on" in str(caught.value)
    found = owner(folder.path)
    assert found is not None
    assert not found.alive
    assert found.pid == os.getpid()
    (folder.path / "run.lock").write_text("}{", encoding="utf-8")
    with folder.owned():
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EIO, errno.EACCES])
def test_a_disk_that_cannot_lock_is_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = RunFolder.create(tmp_path / "a")
    with folder.owned():
        pass

    tried = []

    def flock(file: int, kind: int) -> None:
        tried.append(kind)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunError, match=r"cannot lock files(?s:.)*--run") as caught, RunFolder.open(_opened(folder)).owned():
        pytest.fail("it went on")
    assert len(tried) == 1, "it was tried again"
    assert "process" not in str(caught.value)
    assert "kill" not in str(caught.value)
    assert os.strerror(code) in caught.value.got
    found = owner(folder.path)
    assert found is not None
    assert not found.alive
    assert found.pid == os.getpid()


@pytest.mark.parametrize("trick", ["pipe", "link", "folder"])
def test_a_lock_that_is_no_plain_file_is_refused_and_does_not_block(tmp_path: Path, trick: str) -> None:
    folder, victim = RunFolder.create(tmp_path / "a"), tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    lock = folder.path / "run.lock"
    {"pipe": lambda: os.mkfifo(lock), "link": lambda: lock.symlink_to(victim), "folder": lock.mkdir}[trick]()
    with pytest.raises(RunError, match="cannot take the run folder"), folder.owned():
        pytest.fail("it went on")
    owner(folder.path)
    assert victim.read_text(encoding="utf-8") == "precious"


def _opened(folder: RunFolder) -> Path:
    folder.config.write_text("seed = 0", encoding="utf-8")
    return folder.path


def test_damaged_json_is_named(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    assert folder.read_json("summary.json") == {}
    (folder.path / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"summary\.json"):
        folder.read_json("summary.json")
