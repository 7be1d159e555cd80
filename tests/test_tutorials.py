"""Somebody who has never seen hil does what the tutorials say, literally; tests/follower.py is the reader.

The first test types what takes seconds, in this process; the slow one everything but the installation, each line as in a shell.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from follower import Reader
from pages import DOCS, ROOT

from hil.cli import run
from hil.config import modules

TUTORIALS = DOCS / "tutorials"
INSTALLING = ("make demo", "source ")
LONG = ("python -m pytest", "hil compare")  # test_docs.py runs the test of the page


@pytest.mark.timeout(300)
def test_own_device_and_own_data_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hil(words: Sequence[str]) -> tuple[int, str]:
        code = run(list(words))
        return code, "".join(capsys.readouterr())

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(modules, "_found", {})
    monkeypatch.setattr(modules, "_folders", [])
    reader = Reader(tmp_path, hil, LONG)
    try:
        reader.follow(TUTORIALS / "own_device_and_data.md")
    finally:
        sys.modules.pop("my_rig", None)
    assert [line.split()[:2] for line in reader.ran if line.startswith("hil")] == [
        ["hil", w] for w in ("train", "resume", "status")
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "lines"), [("first_run", 8), ("virtual_bench", 8), ("own_device_and_data", 9)])
def test_every_line_of_a_tutorial(name: str, lines: int, tmp_path: Path) -> None:
    for folder in ("experiments", "benches", "docs"):
        if name != "own_device_and_data":
            shutil.copytree(ROOT / folder, tmp_path / folder)
    reader = Reader(tmp_path, skipped=INSTALLING)
    reader.follow(TUTORIALS / f"{name}.md")
    assert len(reader.ran) == lines
