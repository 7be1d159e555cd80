"""A trained network in use: frozen weights on a node that drifts, watched or not; the run folder stays as it is."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from hil.cli import run
from hil.report import render

FILE = """
seed = 0
[network]
widths = [64, 40, 40, 10]
[device]
use = "mach_zehnder"
drift_rad_per_s = 0.25
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[optimizer]
lr = 5e-3
[train]
epochs = 6
batch = 32
[sentinel]
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("use")
    (folder / "e.toml").write_text(FILE, encoding="utf-8")
    assert run(["train", str(folder / "e.toml"), "--run", str(folder / "r")]) == 0
    return folder / "r"


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def accuracies(said: str) -> list[float]:
    return [float(found) for found in re.findall(r"round +\d+ +validation ([\d.]+)%", said)]


def test_the_sentinel_keeps_a_network_in_use(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = digests(trained)
    assert run(["use", str(trained), "--rounds", "150"]) == 0
    watched = capsys.readouterr().out
    assert run(["use", str(trained), "--rounds", "900", "--no-sentinel"]) == 0
    alone = accuracies(capsys.readouterr().out)
    assert digests(trained) == before
    assert "servo, drive moved by" in watched
    assert min(accuracies(watched)) > 88
    assert len(alone) == 900
    assert min(alone) < 70


def test_a_run_without_weights_cannot_be_used(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["use", str(tmp_path)]) == 2
    (tmp_path / "r").mkdir()
    for name in ("config.toml", "journal.jsonl"):
        (tmp_path / "r" / name).write_bytes((trained / name).read_bytes())
    assert run(["use", str(tmp_path / "r")]) == 2
    assert "no best weights yet" in capsys.readouterr().err


def test_the_report_draws_the_walk(trained: Path) -> None:
    page = render(trained).read_text(encoding="utf-8")
    assert "<h2>Drift</h2>" in page
    looks = json.loads((trained / "summary.json").read_text(encoding="utf-8"))["sentinel"]["looks"]
    assert f"{looks} looks at the node" in page
    (trained / "report.html").unlink()
