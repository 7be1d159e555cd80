"""Progress in a notebook: the bar is one line of the output, changed in place; what stays are the lines of the epochs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hil
from hil.data.dataset import subset
from sim_devices.mach_zehnder import MachZehnder

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import hil
from hil.data.dataset import subset
from sim_devices.mach_zehnder import MachZehnder
net = hil.dense([64, 12, 10], MachZehnder(), overflow="clip")
run = hil.train(net, "adfa", subset(hil.load("digits"), 512), epochs=2, batch=8, run="run", report=False)
"""


def test_the_bar_is_one_line_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            lines.append(data["text/plain"])

    fake: Any = ModuleType("IPython.display")
    fake.display = lambda *values, **how: Handle() if how.get("display_id") else None
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    net = hil.dense([64, 12, 10], MachZehnder(), overflow="clip")
    hil.train(net, "adfa", subset(hil.load("digits"), 512), epochs=2, batch=8, run=tmp_path / "run", report=False)
    assert lines[0].startswith("epoch 1/2 ")
    assert "loss" in lines[0]
    assert "validation" in lines[0]
    assert lines[-1] == ""  # gone in the end


def test_in_a_notebook_itself(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    client = nbclient.NotebookClient(book, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    texts = [output["data"]["text/plain"] for output in book.cells[0].outputs if output["output_type"] == "display_data"]
    assert any("epoch  2/2" in text for text in texts)
    assert "" in texts  # where the bar was
    assert [output for output in book.cells[0].outputs if output["output_type"] == "error"] == []
