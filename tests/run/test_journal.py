"""The journal: one write a line, torn tails named and ended, and the sequence that counts after resumes."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from hil.errors import RunError
from hil.run.journal import COMMIT, Journal, committed, contents, missing


def commits(journal: Journal, steps: range, epoch: int = 1) -> None:
    for step in steps:
        journal.commit(step, epoch, step, 0.5 / step, 100 * step, 0.25 * step, faults=step // 4)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.note("start", node={"use": "x"}, path=tmp_path)
    commits(journal, range(1, 9))
    journal.commit(9, 1, 9, 1e-300, 0, 1e9)
    journal.close()
    journal.note("end", step=9)
    journal.close()
    records = Journal.read(tmp_path / "journal.jsonl")
    assert [r["kind"] for r in records] == ["start", *["commit"] * 9, "end"]
    assert records[0]["path"] == str(tmp_path)
    assert records[5] | {"t": ""} == {
        "t": "", "kind": "commit", "step": 5, "epoch": 1, "batch": 5, "loss": 0.1, "passes": 500, "device_s": 1.25, "faults": 1,
    }  # fmt: skip
    assert all(COMMIT.fullmatch(line) for line in (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)[1:-1])
    found = contents(tmp_path / "journal.jsonl", most=3)
    assert len(found.records) <= 2 + 5
    assert found.last == records[9]
    assert [r["kind"] for r in contents(tmp_path / "journal.jsonl", most=0).records] == ["start", "end"]


def test_every_torn_tail_is_named_skipped_and_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    commits(Journal(path), range(1, 4))
    whole = path.read_bytes()
    begin = whole[:-1].rfind(b"\n") + 1
    for cut in range(begin + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        found = contents(path)
        assert len(found.records) == 2
        assert found.torn
        assert not found.damaged
        journal = Journal(path)
        journal.commit(3, 1, 3, 0.1, 300, 0.0)
        journal.close()
        again = contents(path)
        assert [r["kind"] for r in again.records] == ["commit", "commit", "torn", "commit"]
        assert again.records[2]["bytes"] == cut - begin
        assert again.torn
        assert not again.damaged
        assert not list(missing(committed(again.records)))
    path.write_bytes(whole[:-1])  # all but its end: the record is whole
    commits(Journal(path), range(4, 5))
    assert [r["step"] for r in committed(Journal.read(path))] == [1, 2, 3, 4]


def test_damage_that_no_kill_explains_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    commits(Journal(path), range(1, 6))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0\0\xff\n", b"[1]\n", *lines[2:]]))
    found = contents(path)
    assert [text.partition(":")[0] for text in found.damaged] == ["line 3", "line 4"]
    assert len(found.records) == 5


@pytest.mark.parametrize("seed", range(20))
def test_the_sequence_that_counts(seed: int) -> None:
    """Any history of runs, kills and resumes: each step once, in order, none missing."""
    draw, records, at = random.Random(seed), [], 0
    for _ in range(8):
        saved = at
        for _ in range(draw.randrange(12)):
            at += 1
            records.append({"kind": "commit", "step": at, "run": len(records)})
        at = draw.randint(0, at) if draw.random() < 0.3 else saved
        records.append({"kind": "resume", "step": at})
    for _ in range(3):
        at += 1
        records.append({"kind": "commit", "step": at, "run": len(records)})
    found = committed(records)
    assert [r["step"] for r in found] == list(range(1, at + 1))
    assert not list(missing(found))
    newest = {r["step"]: r["run"] for r in records if r["kind"] == "commit"}
    assert all(r["run"] == newest[r["step"]] for r in found)
    assert list(missing([{"step": 1}, {"step": 3}, {"step": 3}])) == ["step 3 where 2 was due", "step 3 where 4 was due"]


def test_a_full_disk_takes_the_line_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    commits(journal, range(1, 3))
    whole, write = path.read_bytes(), os.write

    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:20]))
    with pytest.raises(RunError, match="No space left"):
        commits(journal, range(3, 4))
    monkeypatch.undo()
    assert path.read_bytes() == whole
    commits(journal, range(3, 4))
    assert not contents(path).torn


def test_the_disk_is_asked_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: asked.append(time.monotonic()))
    journal = Journal(tmp_path / "journal.jsonl", sync_s=0.05)
    end = time.monotonic() + 0.3
    step = 0
    while time.monotonic() < end:
        step += 1
        commits(journal, range(step, step + 1))
        time.sleep(0.001)
    assert 1 <= len(asked) <= 7
    journal.sync()
    before = len(asked)
    journal.close()
    assert len(asked) == before + 1


def test_a_disk_that_fails_later_is_told_at_the_next_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(file: int) -> None:
        raise OSError(5, "Input/output error")

    journal = Journal(tmp_path / "journal.jsonl", sync_s=0.01)
    monkeypatch.setattr(os, "fdatasync", fails)
    journal.note("start")
    time.sleep(0.2)
    with pytest.raises(RunError, match="Input/output"):
        journal.note("more")
    monkeypatch.undo()
    journal.close()


def test_a_step_costs_microseconds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    begin = time.process_time()
    commits(journal, range(1, 5001))
    each = (time.process_time() - begin) / 5000
    journal.close()
    assert each < 200e-6  # 8 µs on an idle machine
    assert json.loads((tmp_path / "journal.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"] == 5000
