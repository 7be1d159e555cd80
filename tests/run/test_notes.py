"""Tags and a note of a run: checked, written whole, and no part of what the run needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil.cli import run as command
from hil.errors import ConfigError, RunError
from hil.run import notes
from hil.run.folder import RunFolder
from hil.run.notes import Notes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder.create(tmp_path / "r")
    folder.write_config("seed = 1\n")
    return folder.path


def test_what_is_written_is_read(run: Path) -> None:
    assert notes.read(run) == Notes()
    notes.changed(run, " second sample \n laser at 3 dBm ", ["good", "for the paper", "good "])
    assert notes.read(run) == Notes(("good", "for the paper"), "second sample \n laser at 3 dBm")
    notes.changed(run, untag=["good", "never there"])
    assert notes.read(run) == Notes(("for the paper",), "second sample \n laser at 3 dBm")
    notes.changed(run, note="")
    assert notes.read(run) == Notes(("for the paper",))


@pytest.mark.parametrize("tag", ["", " ", "x" * 41, "a,b", "\x1b[2J", "a\nb", "\u202e"])
def test_what_is_no_tag(run: Path, tag: str) -> None:
    with pytest.raises(ConfigError, match="not a tag"):
        notes.changed(run, tag=[tag])
    assert not (run / notes.NAME).exists()


@pytest.mark.parametrize("note", ["x" * 2001, "\x1b[2J", "a\tb"])
def test_what_is_no_note(run: Path, note: str) -> None:
    with pytest.raises(ConfigError, match="not a note"):
        notes.changed(run, note)


def test_too_many_tags(run: Path) -> None:
    with pytest.raises(ConfigError, match="too many"):
        notes.changed(run, tag=[f"t{n}" for n in range(33)])


@pytest.mark.parametrize("text", ["tags = 3", "note = [1]", "tags = [1]", "= x", 'tags = ["\\u001b"]'])
def test_a_damaged_file_is_said_and_not_written_over(run: Path, text: str) -> None:
    (run / notes.NAME).write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        notes.changed(run, tag=["good"])
    assert (run / notes.NAME).read_text(encoding="utf-8") == text


def test_a_folder_that_is_no_run_gets_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        notes.write(tmp_path, Notes(("good",)))


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["note", str(run), "a first look", "--tag", "good", "--tag", "draft"]) == 0
    assert command(["note", str(run), "--untag", "draft"]) == 0
    assert command(["note", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["tags    good", "note    a first look"]
