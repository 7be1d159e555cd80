"""hil compare: equal terms, resumable, honest about noise."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hil.cli import run
from hil.commands import compare
from hil.errors import ConfigError, Interrupted

BASE = """
[network]
widths = [64, 16, 10]
[device]
use = "mach_zehnder"
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[optimizer]
lr = 5e-3
[train]
epochs = 2
batch = 64
"""
FILE = """
base = "base.toml"
seeds = [0, 1]
budget_passes = 20_000
[[learner]]
use = "pat"
[[learner]]
name = "SPSA"
use = "spsa"
set = ["optimizer.lr=0.002"]
[[learner]]
use = "last_layer"
"""


def write(tmp_path: Path, text: str = FILE) -> Path:
    (tmp_path / "base.toml").write_text(BASE, encoding="utf-8")
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_compare_from_the_command_line_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, drawing: object
) -> None:
    """The page of the comparison is drawn once; those of its runs, and that of what is made again, are not."""
    inner = compare.write

    def drawn(*arguments: Any) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("matplotlib.figure.Figure.savefig", drawing)
            monkeypatch.setattr(compare, "write", inner)
            return inner(*arguments)

    monkeypatch.setattr(compare, "write", drawn)
    path, out = write(tmp_path), tmp_path / "out"
    assert run(["compare", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("(made before)") == 0
    assert "Welch" in said
    found = json.loads((out / "table.json").read_text(encoding="utf-8"))
    rows = {line["learner"]: line for line in found["rows"]}
    assert rows.keys() == {"pat", "SPSA", "last_layer"}
    assert rows["pat"]["seeds"] == [0, 1]
    assert rows["pat"]["worst"] <= rows["pat"]["mean"]
    assert rows["pat"]["angles_deg"][0] < 5
    assert rows["last_layer"]["angles_deg"][0] is None
    spent = {name: [one["curve"][-1][0] for one in line["runs"]] for name, line in rows.items()}
    for passes in spent.values():  # all ended with the step that spent the budget; then they were validated
        assert all(0 <= p - 20_000 - 180 * 16 < 2 * 64 * 16 for p in passes)
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "<path" in page  # it was drawn
    assert not re.search(r"""(src|href)=["']https?://""", page)
    asked = (out / "runs" / "spsa" / "base" / "seed-1" / "config.toml").read_text(encoding="utf-8")
    assert "lr = 0.002" in asked

    before = (out / "runs" / "pat" / "base" / "seed-0" / "journal.jsonl").read_text(encoding="utf-8")
    (out / "runs" / "spsa" / "base" / "seed-1" / "summary.json").unlink()
    assert run(["compare", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("(made before)") == 5
    assert (out / "runs" / "pat" / "base" / "seed-0" / "journal.jsonl").read_text(encoding="utf-8") == before
    again = json.loads((out / "table.json").read_text(encoding="utf-8"))
    assert [line["mean"] for line in again["rows"]] == [line["mean"] for line in found["rows"]]

    path.write_text(FILE.replace("20_000", "50_000"), encoding="utf-8")
    assert run(["compare", str(path), "--out", str(out)]) == 2
    assert "other settings" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(cell: compare.Cell) -> None:
        raise Interrupted("stopped by SIGINT", where=str(cell.folder), todo="hil resume")

    monkeypatch.setattr(compare, "_train", stopped)
    assert run(["compare", str(write(tmp_path)), "--out", str(tmp_path / "out")]) == 130
    assert "hil compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (FILE.replace("seeds", "seds"), ["seds", 'Did you mean "seeds"?']),
        (FILE.replace("[0, 1]", "[]"), ["seeds"]),
        (FILE.replace('use = "pat"', 'use = "pta"'), ["pta", "pat"]),
        (FILE.replace('use = "last_layer"', 'use = "last_layer"\nlos = "mse"'), ["los", 'Did you mean "loss"?']),
        (FILE.replace('"optimizer.lr=0.002"', '"optimizer.lr"'), ["section.key=value"]),
        (FILE.replace('name = "SPSA"', 'name = "Pat"'), ["called alike"]),
        (FILE.replace("base.toml", "bas.toml"), ["bas.toml"]),
        (FILE + '[[device]]\nname = "d"\nset = 3', ["set = 3"]),
    ],
)
def test_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, parts: list[str]) -> None:
    path = write(tmp_path, text)
    assert run(["compare", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    for part in parts:
        assert part in said
    assert not (tmp_path / "out").exists()


def test_devices_and_learners_are_crossed(tmp_path: Path) -> None:
    text = (
        FILE + '[[device]]\nname = "good"\nuse = "mach_zehnder"\n[[device]]\nname = "bad"\nuse = "mach_zehnder"\nnoise = 30.0\n'
    )
    path = write(tmp_path, text)
    cells = list(compare.cells(compare.read(path), path, tmp_path / "out"))
    assert len(cells) == 2 * 2 * 3
    assert len({cell.folder for cell in cells}) == 12
    noisy = [cell for cell in cells if cell.device == "bad"]
    assert all(cell.experiment.device.settings() == {"noise": 30.0} for cell in noisy)
    with pytest.raises(ConfigError, match="no such file"):
        compare.read(tmp_path / "none.toml")


ABLATION = """
base = "base.toml"
seeds = [0, 1]
epochs = 1
ablation = true
[[learner]]
use = "adfa"
"""


def test_an_ablation_adds_a_wire_a_dead_node_and_the_last_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path, ABLATION), tmp_path / "out"
    assert run(["compare", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "what the node adds" in said
    assert "base, adfa: the node adds" in said
    found = json.loads((out / "table.json").read_text(encoding="utf-8"))
    rows = {(line["learner"], line["instead"]): line for line in found["rows"]}
    assert rows.keys() == {(name, instead) for name in ("adfa", "last layer") for instead in ("", "wire", "dead")}
    assert rows["adfa", "dead"]["mean"] < 0.2 < rows["adfa", ""]["mean"]  # nothing gets around a dead node
    assert len({line["device_passes"] for line in rows.values()}) == 1  # on equal terms
    assert len(rows["adfa", ""]["feedback_correlation"]) == 1
    assert 0 < rows["adfa", ""]["feedback_correlation"][0] <= 1
    assert rows["last layer", ""]["feedback_correlation"] == []
    assert [one["learner"] for one in found["ablation"]] == ["adfa", "last layer"]
    assert found["ablation"][0]["over_wire"]["error"] > 0
    wire = (out / "runs" / "adfa" / "base" / "wire" / "seed-0" / "config.toml").read_text(encoding="utf-8")
    assert 'instead = "wire"' in wire
    assert 'overflow = "clip"' in wire
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "What the node adds" in page
    assert "the node adds" in page
    assert "|r|" in page
    assert run(["compare", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("(made before)") == len(rows) * 2


def test_an_ablation_of_spiking_neurons_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, ABLATION.replace("adfa", "adfa_snn") + '[[device]]\nchip = "lif"')
    assert run(["compare", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "static node only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_comparison_reads_its_files_once_and_nothing_that_it_wrote(tmp_path: Path, files_read: Counter[str]) -> None:
    assert run(["compare", str(write(tmp_path)), "--out", str(tmp_path / "out")]) == 0
    assert files_read == {"c.toml": 1, "base.toml": 1}
