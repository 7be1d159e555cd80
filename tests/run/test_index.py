"""The index of many folders: what it says of runs that live, ended, died or are damaged; it reads again what changed alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hil.run import glance, index, journal, notes
from hil.run.folder import RunFolder
from hil.run.index import Entry, Index
from hil.run.journal import Journal

BEGIN = datetime(2026, 11, 25, 10, tzinfo=UTC).timestamp()
CONFIG = (
    'seed = 3\nname = "night"\n[device]\nbench = "benches/mzm_awg_scope.toml"\n[learner]\nuse = "adfa"\n[train]\nepochs = 4\n'
)
REAL = {"provenance": "real", "resources": {"awg": "SN 1"}, "epochs": 4, "batches_per_epoch": 10}
TWIN = {"provenance": "twin", "resources": {}, "epochs": 4, "batches_per_epoch": 10}


def made(path: Path, *, steps: int = 15, begun: Mapping[str, object] = REAL, end: str = "", config: str = CONFIG) -> RunFolder:
    """A run folder as hil train leaves it after so many steps; `end`: the kind of its last event."""
    folder, now = RunFolder.create(path), [0.0]
    folder.write_config(config)
    told = Journal(
        path / "journal.jsonl", now=lambda: datetime.fromtimestamp(BEGIN + now[0], UTC).isoformat(timespec="milliseconds")
    )
    told.note("start", **begun)
    for step in range(1, steps + 1):
        now[0] = float(step)
        told.commit(step, (step - 1) // 10 + 1, (step - 1) % 10 + 1, 1 / step, 100 * step, 0.25 * step, faults=2)
        if step % 10 == 0:
            told.note("epoch", epoch=step // 10, step=step, accuracy=0.5 + step / 100, loss=1.0)
            folder.measure(
                {"epoch": step // 10, "step": step, "split": "validation", "loss": 1.0, "accuracy": 0.5 + step / 100}
            )
    if end:
        told.note(end, step=steps)
    told.close()
    return folder


def only(root: Path) -> Entry:
    (found,) = Index([root]).entries()
    return found


def test_a_run_at_work(tmp_path: Path) -> None:
    folder = made(tmp_path / "runs" / "r")
    notes.changed(folder.path, "a note", ["good"])
    with folder.owned():
        found = only(tmp_path / "runs")
        assert (found.state, found.outputs, found.provenance) == ("at work", "on", "real")
        assert (found.learner, found.device, found.seed, found.name) == ("adfa", "mzm_awg_scope", 3, "night")
        assert (found.epoch, found.epochs, found.step, found.steps) == (2, 4, 15, 40)
        assert found.left_s == pytest.approx(25.0)
        assert (found.metric, found.value, found.split, found.lower) == ("accuracy", 0.6, "validation", False)
        assert (found.wall_s, found.device_s, found.device_passes, found.faults) == (15.0, 3.75, 1500, 2)
        assert (found.started, found.tags, found.note, found.remarks) == (BEGIN, ("good",), "a note", ())
        folder.note("pause", step=15, by="me")
        assert only(tmp_path / "runs").outputs == "not known"  # not read back yet
        folder.note("safe", outputs="off, read back")
        assert (only(tmp_path / "runs").state, only(tmp_path / "runs").outputs) == ("paused", "off, read back")


@pytest.mark.parametrize(
    ("end", "status", "state"),
    [("interrupt", "interrupted", "interrupted"), ("fault", "fault", "fault"), ("unsafe", "fault", "unsafe"),
     ("end", "done", "done"), ("pause", "interrupted", "interrupted"), ("", "", "dead")],
)  # fmt: skip
def test_how_a_run_ended(tmp_path: Path, end: str, status: str, state: str) -> None:
    folder = made(tmp_path / "r", end=end)
    if status:
        folder.write_json("summary.json", {"status": status, "outputs": "off, read back", "test_accuracy": 0.7})
    found = only(tmp_path)
    assert found.state == state
    assert found.outputs == ("off, read back" if status else "not known")
    assert (found.value, found.split) == ((0.7, "test") if status else (0.6, "validation"))


ASKED = "off, but awg cannot be asked: what was sent is all that is known"


def guardian(path: Path, *lines: Mapping[str, object]) -> None:
    (path / "guardian.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("lines", "outputs"),
    [
        ([{"event": "watching"}, {"event": "made safe", "outputs": "safe"}], "off, read back"),
        ([{"event": "watching"}, {"event": "made safe", "outputs": "safe", "after": ASKED}], ASKED),
        ([{"event": "watching"}, {"event": "not made safe", "outputs": "unknown"}], "not known"),
        ([{"event": "watching"}], "not known"),
        ([{"event": "watching"}, {"event": "done", "outputs": "safe"}, {"event": "watching"}], "not known"),
        ([{"event": "watching", "virtual": True}], "not known"),
        ([{"event": "watching", "virtual": True}, {"event": "x", "outputs": "unknown"}], "none (its virtual bench is gone)"),
        ([], "not known"),
    ],
)
def test_the_outputs_of_a_dead_run_are_what_its_guardian_says(
    tmp_path: Path, lines: list[dict[str, object]], outputs: str
) -> None:
    folder = made(tmp_path / "r")
    folder.write_json("summary.json", {"status": "interrupted", "outputs": "off, read back"})  # of an earlier end
    guardian(folder.path, *lines)
    assert (only(tmp_path).state, only(tmp_path).outputs) == ("dead", outputs)


def test_a_twin_has_no_outputs_and_a_hosted_device_its_host(tmp_path: Path) -> None:
    made(tmp_path / "twin", begun=TWIN)
    hosted = made(tmp_path / "hosted", begun={**REAL, "resources": {"device": "mine"}})
    (hosted.path / "host.jsonl").write_text(
        '{"event": "open"}\n{"event": "trainer gone", "outputs": "safe"}\n', encoding="utf-8"
    )
    found = {entry.path.name: entry.outputs for entry in Index([tmp_path]).entries()}
    assert found == {"twin": "none (twin)", "hosted": "safe, as its host has verified"}


def test_a_summary_of_an_earlier_end_is_not_believed(tmp_path: Path) -> None:
    folder = made(tmp_path / "r", end="end")
    folder.write_json("summary.json", {"status": "done", "outputs": "off, read back", "test_accuracy": 0.7, "wall_s": 1.0})
    folder.journal.note("resume", step=15, **REAL)
    folder.journal.close()
    found = only(tmp_path)
    assert (found.state, found.outputs, found.value, found.split) == ("dead", "not known", 0.6, "validation")


DAMAGES = {
    "config.toml": b"= 3\x00", "summary.json": b"[1", "journal.jsonl": b"\xff\xfe{\n" * 50, "metrics.jsonl": b"{" * 1000,
    "notes.toml": b"tags = 3", "run.lock": b"\x00" * 100, "guardian.jsonl": b"\xff" * 9,
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("how", ["damaged", "folder", "pipe", "gone"])
def test_a_damaged_folder_is_an_entry_that_says_so(tmp_path: Path, name: str, how: str) -> None:
    folder = made(tmp_path / "r", end="fault")
    folder.write_json("summary.json", {"status": "fault", "outputs": "off, read back"})
    path = folder.path / name
    path.unlink(missing_ok=True)
    if how == "damaged":
        path.write_bytes(DAMAGES[name])
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    found = only(tmp_path)
    assert found.kind == "run"
    assert all("\n" not in remark for remark in found.remarks)
    said = (how == "gone" and name == "config.toml") or (
        how != "gone" and name in ("config.toml", "summary.json", "notes.toml")
    )
    assert bool(found.remarks) or not said, found


def test_nothing_of_a_folder_moves_a_cursor(tmp_path: Path) -> None:
    folder = made(
        tmp_path / "r", end="fault", config='name = "\\u001b[2J"\nseed = 1e400\n[learner]\nuse = 3\n[device]\nuse = ["a"]\n'
    )
    folder.write_json(
        "summary.json",
        {"status": "\x1b", "metric": "\x1b]0;x\x07", "test_\x1b": float("nan"), "wall_s": 10**400, "outputs": "\x1bc"},
    )
    found = only(tmp_path)
    assert "\x1b" not in repr(found).replace("\\\\x1b", "")
    assert found.wall_s is None


def test_what_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "a")
    second, seen = made(tmp_path / "b"), []
    inner = index._run
    monkeypatch.setattr(index, "_run", lambda path, alive: seen.append(path.name) or inner(path, alive))
    listed = Index([tmp_path])
    assert len(listed.entries()) == 2
    assert sorted(seen) == ["a", "b"]
    listed.entries()
    assert len(seen) == 2
    second.note("fault", message="x")
    second.journal.close()
    assert {entry.path.name: entry.state for entry in listed.entries()} == {"a": "dead", "b": "fault"}
    assert seen[2:] == ["b"]
    with second.owned():  # the lock alone says so
        assert {entry.path.name: entry.state for entry in listed.entries()}["b"] == "at work"
    assert {entry.path.name: entry.state for entry in listed.entries()}["b"] == "fault"
    second.path.rename(tmp_path / "c")
    assert {entry.path.name for entry in listed.entries()} == {"a", "c"}


def test_comparisons_searches_and_calibrations(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = made(tmp_path / "compare" / "c" / "runs" / "adfa" / "mzm" / f"seed-{seed}", end="end", begun=TWIN)
        (run.path / "asked.toml").write_text("", encoding="utf-8")
        run.write_json("summary.json", {"status": "done", "test_accuracy": 0.7, "device_passes": 10, "wall_s": 2.0})
    rows = [{"learner": "adfa", "device": "mzm", "mean": 0.7}, {"learner": "dfa", "device": "mzm", "mean": 0.8}]
    (tmp_path / "compare" / "c" / "table.json").write_text(json.dumps({"name": "both", "rows": rows}), encoding="utf-8")
    search = RunFolder.create(tmp_path / "runs" / "s")
    search.write_config(CONFIG)
    (search.path / "search.toml").write_text("seed = 5\n[search]\ngenerations = 9\n", encoding="utf-8")
    (search.path / "generations.jsonl").write_text("{}\n{}\n", encoding="utf-8")
    bench = tmp_path / "calibrations" / "mzm-20261125-100000.toml"
    bench.parent.mkdir()
    bench.write_text(
        'bench = "mzm"\ngood = true\ntaken_at = "2026-11-25T10:00:00+00:00"\nprovenance = "real"\n', encoding="utf-8"
    )
    bench.with_suffix(".safetensors").write_bytes(b"")
    found = {entry.kind: entry for entry in Index([tmp_path]).entries()}
    assert set(found) == {"run", "comparison", "search", "calibration"}
    one = found["comparison"]
    assert (one.name, one.state, one.value, one.learner, one.step, one.steps) == ("both", "done", 0.8, "dfa", 2, 2)
    assert (one.device_passes, one.wall_s, one.outputs) == (20, 4.0, "none (twin)")
    assert (found["search"].state, found["search"].epoch, found["search"].epochs, found["search"].seed) == ("dead", 2, 9, 5)
    assert (found["calibration"].state, found["calibration"].started, found["calibration"].device) == ("good", BEGIN, "mzm")


def test_the_ends_of_a_long_journal(tmp_path: Path) -> None:
    folder = made(tmp_path / "r", steps=3000)
    path = folder.path / "journal.jsonl"
    head, tail, damaged = journal.ends(path, last=glance.TAIL_BYTES)
    assert (head[0]["kind"], tail[-1]["step"], damaged) == ("start", 3000, 0)
    with path.open("ab") as file:
        file.write(b'{"torn')
    assert journal.ends(path)[1][-1]["step"] == 3000
    assert glance.told(folder.path).per_s == pytest.approx(1.0)
    assert (only(tmp_path).steps, only(tmp_path).step) == (40, 3000)


def test_roots_that_are_not_there_and_a_run_as_a_root(tmp_path: Path) -> None:
    made(tmp_path / "r")
    assert Index([tmp_path / "none"]).entries() == []
    assert len(Index([tmp_path / "r", tmp_path / "r", tmp_path]).entries()) == 1
    (tmp_path / "link").symlink_to(tmp_path / "r")
    assert len(Index([tmp_path]).entries()) == 1
