"""The notebooks of docs/tutorials/notebooks/ run as scripts, draw what they say, and convert to notebooks."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from pages import DOCS

NOTEBOOKS = sorted((DOCS / "tutorials" / "notebooks").glob("*.py"))


def cells(path: Path) -> list[tuple[str, str]]:
    """(kind, text) of every cell: "" or " [markdown]"."""
    parts = re.split(r"^# %%( \[markdown\])?\n", path.read_text(encoding="utf-8"), flags=re.M)
    return [(kind or "", text) for kind, text in zip(parts[1::2], parts[2::2], strict=True)]


def test_there_are_notebooks_and_a_page_lists_them() -> None:
    index = (DOCS / "tutorials" / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) >= 6
    assert not [path.name for path in NOTEBOOKS if f"]({path.name})" not in index]


@pytest.mark.drawn
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_draws(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path.name])
    with plt.rc_context({"figure.max_open_warning": 0}):
        plt.switch_backend("agg")
        runpy.run_path(str(path), run_name="__main__")
        plt.close("all")
    pictures = re.findall(r'savefig\("(\w+\.png)"', path.read_text(encoding="utf-8"))
    assert pictures
    for name in pictures:
        drawn = plt.imread(tmp_path / name)
        assert drawn.shape[1] >= 480, name
        assert len({tuple(row) for row in drawn.reshape(-1, drawn.shape[2])[::7].tolist()}) > 20, f"{name} is blank"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_text_stands_before_code_and_links_lead_somewhere(path: Path) -> None:
    listed = cells(path)
    assert listed[0][0] == " [markdown]"
    assert listed[0][1].startswith("#\n# # ") or listed[0][1].startswith("# # ")
    for kind, text in listed:
        if kind:
            assert all(line.startswith("#") for line in text.strip().splitlines())
            for link in re.findall(r"\]\(([^)#]+)\)", text):
                assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_jupytext_makes_a_notebook_of_it(path: Path) -> None:
    jupytext = pytest.importorskip("jupytext", reason="pip install hil[docs]")
    made = jupytext.read(path)
    assert [cell.cell_type == "markdown" for cell in made.cells] == [bool(kind) for kind, _ in cells(path)]
    assert made.metadata["kernelspec"]["name"] == "python3"
