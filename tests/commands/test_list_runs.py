"""hil list runs: what a run is, in 80 columns; filtered, sorted, as JSON. hil status --watch: until the run ends."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from small import toml

from hil.cli import run
from hil.run import notes
from hil.run.folder import RunFolder

CONFIG = 'seed = 3\n[device]\nbench = "benches/a_bench_with_a_long_name.toml"\n[learner]\nuse = "adfa"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs, of which the second is the best and the third is damaged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for number, score in enumerate((0.7, 0.9)):
        folder = RunFolder.create(tmp_path / "runs" / f"a-run-of-the-night-20261130-01020{number}")
        folder.write_config(CONFIG)
        folder.note("end", step=1)
        folder.journal.close()
        folder.write_json("summary.json", {"status": "done", "test_accuracy": score, "provenance": "real"})
        notes.changed(folder.path, tag=["good", "for the paper"] if number else ["good"])
    RunFolder.create(tmp_path / "runs" / "damaged").write_config("= 3")
    return tmp_path


def test_a_table_for_80_columns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "runs"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for word in ("2026-", "done", "adfa", "70.0%", "90.0%", "good", "dead!"):
        assert word in said
    assert "outputs" not in said


def test_a_wide_table_has_more(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["list", "runs"]) == 0
    said = capsys.readouterr().out
    assert "outputs" in said
    assert "a_bench_with_a_long_name" in said
    assert "config.toml: not TOML" in said


def test_filter_sort_and_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "runs", ".", "--json", "--tag", "good", "--sort", "value"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["value"] for entry in found] == [0.9, 0.7]
    assert found[0]["tags"] == ["good", "for the paper"]
    assert run(["list", "runs", "--json", "--tag", "good", "--tag", "for the paper"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert run(["list", "learners", "--json"]) == 2
    assert "this is for runs" in capsys.readouterr().err


def test_tags_and_a_note_at_the_start(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "e.toml").write_text(toml(), encoding="utf-8")
    assert run(["train", "e.toml", "--run", "r", "--tag", "a,b"]) == 2
    assert not (here / "r").exists()
    assert run(["train", "e.toml", "--run", "r", "--tag", "one", "--tag", "two", "--note", "why"]) == 0
    assert notes.read(here / "r") == notes.Notes(("one", "two"), "why")


def test_watching_ends_with_the_run(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.commands.watch.EVERY_S", 0.05)
    path = here / "runs" / "damaged"
    folder = RunFolder(path)
    folder.write_config("seed = 1\n")
    begun, over = threading.Event(), threading.Event()

    def training() -> None:
        with folder.owned():
            folder.note("start", epochs=1, batches_per_epoch=2)
            (path / "output.log").write_text("before\n", encoding="utf-8")
            begun.set()
            over.wait(60)
            with (path / "output.log").open("a", encoding="utf-8") as file:
                file.write("after\x1b[2J\n")
            time.sleep(0.3)
            folder.note("interrupt", signal="hil stop")

    thread = threading.Thread(target=training)
    thread.start()
    begun.wait(60)
    threading.Timer(0.5, over.set).start()
    assert run(["status", str(path), "--watch"]) == 0
    thread.join()
    said = capsys.readouterr().out
    assert said.index("before") < said.index("after\\x1b[2J")
    assert "state   training" in said
    assert said.rindex("state   interrupted") > said.index("after")


@pytest.mark.parametrize("words", [["--log-level", "loud", "list"], ["list", "--log-level"], ["--log-level=", "list"]])
def test_a_level_that_is_none(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(words) == 2
    assert "quiet, normal, debug" in capsys.readouterr().err


def test_levels(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "e.toml").write_text(toml(), encoding="utf-8")
    assert run(["train", "e.toml", "--run", "quiet", "--log-level=quiet"]) == 0
    said = capsys.readouterr().out
    assert all(line.startswith(("beware", " ")) for line in said.splitlines()), said
    assert "done in" in (here / "quiet" / "output.log").read_text(encoding="utf-8")
    monkeypatch.setenv("HIL_LOG", "debug")
    assert run(["train", "e.toml", "--run", "debug"]) == 0
    assert " . checkpoint: step 0" in capsys.readouterr().out
