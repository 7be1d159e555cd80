"""A run over a node with memory, from a file to its report: recorded, replayed, and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, written

from hil.cli import run

FILE = Path(__file__).resolve().parents[2] / "experiments" / "narma10_delay_loop.toml"
SMALL = ("data.number=9", "data.steps=150", "task.washout=30")
SYMBOLS = ('data.use="channel_equalisation"', "network.widths=[1, 50, 4]", 'task.metric="symbol_error_rate"')


def trained(folder: Path, *settings: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    assert run(["train", str(FILE), *(word for text in settings for word in ("--set", text)), "--run", str(folder), *more]) == 0
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def test_numbers_and_their_report(tmp_path: Path) -> None:
    assert trained(tmp_path / "r", *SMALL)["test_nrmse"] < 0.6
    seen = json.loads((tmp_path / "r" / "diagnostics.json").read_text(encoding="utf-8"))["series"]
    assert seen["first"] == 30
    assert len(seen["input"]) == len(seen["target"]) == len(seen["output"]) == 120
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    for title in ("A test sequence over time", "Memory curve", "Spectrum of the states"):
        assert title in page
    assert "The states are the readings of nodes 1, 11, " in page
    assert "gives no direction" in page


def test_classes_a_step(tmp_path: Path) -> None:
    assert trained(tmp_path / "r", *SMALL, *SYMBOLS)["test_symbol_error_rate"] < 0.4
    found = json.loads((tmp_path / "r" / "diagnostics.json").read_text(encoding="utf-8"))["confusion"]
    assert sum(map(sum, found)) == 2 * 120


def test_a_noisy_loop_whose_state_is_carried_on_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("device.noise=1e-3", "device.loop_noise=1e-3", 'learner.between="carry"', "train.batch=3")
    trained(tmp_path / "r", *SMALL, *settings, more=("--record",))
    capsys.readouterr()
    assert run(["replay", str(tmp_path / "r")]) == 0
    assert "identical" in capsys.readouterr().out


def test_the_node_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is owned by a host; another learner is refused before that is started."""
    written([DOCS / "how-to" / "train_a_node_with_memory.md"], tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["train", "my_loop.toml", "--run", "r"]) == 0
    assert json.loads(Path("r/summary.json").read_text(encoding="utf-8"))["test_nrmse"] < 0.5
    assert run(["train", "my_loop.toml", "--set", "learner.use=adfa", "--run", "other"]) == 2
    told = capsys.readouterr().err
    assert "this node has a state in time, and this learner has no time axis" in told
    assert "nothing was opened" in told
