"""Somebody adds a shape, a driver, a learner and a twin outside of the packages, and follows the how-tos alone, literally."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, ROOT, blocks, written

from hil.cli import run
from hil.config import modules

HOW_TO = DOCS / "how-to"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the four how-tos, and nothing else."""
    folder = tmp_path_factory.mktemp("lab")
    pages = [HOW_TO / f"add_a_{noun}.md" for noun in ("shape", "driver", "learner", "twin")]
    files = written(pages, folder)
    assert {"level_shape.py", "g1.toml", "acme_g1.py", "random_feedback.py", "diode.py"} <= set(files)
    return folder


def hil(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As a user types it, in the folder."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "hil", *arguments], cwd=lab, env=surroundings, capture_output=True, text=True, timeout=110
    )


def summary(lab: Path, folder: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((lab / folder / "summary.json").read_text())
    return found


def test_own_shape_own_driver_and_own_learner_in_one_run(lab: Path) -> None:
    ended = hil(lab, "train", "g1_digits.toml", "--set", "learner.use=random_feedback:RandomFeedback", "--run", "all")
    assert ended.returncode == 0, ended.stderr
    assert "Acme G1   TCPIP::127.0.0.1" in ended.stdout
    found = summary(lab, "all")
    assert found["status"] == "done"
    assert found["provenance"] == "twin"
    assert found["test_accuracy"] > 0.4  # type: ignore[operator]
    end = json.loads((lab / "all" / "bench.log").read_text().splitlines()[-1])  # the simulated instrument's own word
    assert end["outputs"]["g1"]["1"]["on"] is False


@pytest.mark.parametrize("page", ["add_a_learner.md", "add_a_twin.md"])
def test_the_command_of_a_page_runs_as_it_stands(lab: Path, page: str) -> None:
    (line,) = [line for block in blocks(HOW_TO / page) for line in block.text.splitlines() if line.startswith("hil ")] or [
        f"hil train {next(b.file for b in blocks(HOW_TO / page) if b.file.endswith('.toml'))}"
    ]
    ended = hil(lab, *line.split()[1:], "--run", page.removesuffix(".md"))
    assert ended.returncode == 0, ended.stderr
    assert summary(lab, page.removesuffix(".md"))["status"] == "done"


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("g1.toml", 'high = "3 V"', 'high = "30 V"', r"limits may be narrowed, never widened"),
        ("g1.toml", 'source = "g1"', 'source = "g2"', r"bad_g1\.toml: \[node\] source: no such instrument"),
        ("g1.toml", "level_shape:Shape", "level_shapes:Shape", r'cannot import "level_shapes:Shape"'),
    ],
)
def test_a_slip_in_the_bench_file_is_explained(
    lab: Path,
    file: str,
    before: str,
    after: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, known = (lab / file).read_text(), set(sys.modules)
    assert before in text
    (lab / f"bad_{file}").write_text(text.replace(before, after))
    monkeypatch.chdir(lab)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(modules, "_found", {})  # as in a process of its own
    monkeypatch.setattr(modules, "_folders", [])
    code = run(["train", "g1_digits.toml", "--set", f"device.bench=bad_{file}", "--run", "bad"])
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(lab)):
            del sys.modules[name]  # other tests have modules of these names
    told = capsys.readouterr().err
    assert code == 2, told
    assert re.search(said, told)
    assert "Traceback" not in told
