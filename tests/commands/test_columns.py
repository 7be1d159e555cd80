"""On a terminal of 80 columns no line of ours is longer, and a line that has to be broken is broken between words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import ROOT
from small import toml

from hil.cli import run
from hil.commands.terminal import broken

SEARCH = """
base = "e.toml"
[search]
population = 4
generations = 1
elites = 1
[genome]
[train]
epochs = 1
examples = 60
score = 20
held = 16
[evaluate]
workers = 1
[confirm]
seeds = 2
candidates = 1
random = 1
hand_made = false
"""
COMPARE = 'base = "e.toml"\nseeds = [0]\n[[learner]]\nuse = "adfa"\n[[learner]]\nuse = "last_layer"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "e.toml").write_text(toml(), encoding="utf-8")
    (tmp_path / "s.toml").write_text(SEARCH, encoding="utf-8")
    (tmp_path / "c.toml").write_text(COMPARE, encoding="utf-8")
    return tmp_path


def test_every_command_keeps_to_80_columns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for words in (
        ["train", "e.toml", "--run", "runs/a"], ["status", "runs/a"], ["list"], ["list", "runs"], ["compare", "c.toml"],
        ["describe", "train"], ["describe", "mach_zehnder"], ["search", "s.toml", "--run", "runs/s"],
        ["doctor", str(ROOT / "benches" / "mzm_awg_scope.toml")], ["--help"], ["train", "--help"],
    ):  # fmt: skip
        assert run(words) == 0, capsys.readouterr().err
        told[" ".join(words[:2])] = said = capsys.readouterr().out
        for line in said.splitlines():
            longest = max(map(len, line.split()), default=0)  # a path is not broken
            assert len(line) <= max(80, longest + 12), f"{words[0]}: {line}"
    assert "adfa" in told["list runs"]
    assert "mach_zehnder" in told["list runs"]
    assert "in the report: " in told["compare c.toml"]
    assert "…" not in told["list"]


def test_an_error_keeps_to_80_columns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "e.toml", "--set", "train.epoch=3"]) == 2
    err = capsys.readouterr().err
    assert max(map(len, err.splitlines())) <= 80
    assert 'Did you mean "epochs"?' in " ".join(err.split())


def test_lines_go_on_below_their_text_and_stay_whole_in_a_log(here: Path, capsys: pytest.CaptureFixture[str],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    assert list(broken("twin    one two three", 16)) == ["twin    one two", "        three"]
    assert list(broken("/a/very/long/path/that/is/one/word", 10)) == ["/a/very/long/path/that/is/one/word"]
    assert list(broken("short", 80)) == ["short"]
    monkeypatch.delenv("COLUMNS")
    assert run(["train", "e.toml", "--run", "runs/log"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) > 80


def test_completion_can_be_installed(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert run(["--install-completion", "--shell", "bash"]) == 0
    scripts = [path for path in here.rglob("*") if path.is_file() and "hil" in path.name]
    assert scripts
    assert "calibrate" in scripts[0].read_text(encoding="utf-8")
