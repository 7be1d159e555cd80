"""`import hil` is all that a script needs, costs nothing, and touches nothing; the examples and the docstrings are executed."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hil

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
PACKAGES = ("hil", "drivers", "sim_devices", "calibration")

IMPORT = """
import gc, json, os, sys, time
import torch
gc.collect()
gc.freeze()  # looking through what torch has made is a cost of torch, whoever is next to allocate
begun, events = time.process_time(), []

def hook(event, args):
    if event.startswith("socket"):
        events.append(event)
    elif event == "open":
        path, mode, flags = args
        if set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            events.append(f"open {path}")
    elif event in ("os.mkdir", "os.rename", "os.remove", "subprocess.Popen", "os.fork", "os.posix_spawn"):
        events.append(f"{event} {args}")

sys.addaudithook(hook)
import hil
for name in hil.__all__:
    getattr(hil, name)
print(json.dumps([time.process_time() - begun, events]))
"""
PRINTS_ONLY = {"13_residual_blocks.py"}
SHORTER = {"13_residual_blocks.py": ("range(8)", "range(1)")}  # epochs, of three trainings


def imported(home: Path, first: str = "") -> tuple[float, list[str]]:
    """CPU seconds that hil and all its names take beyond torch, and what that wrote or opened. first: what is done before."""
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": str(ROOT)}
    code = IMPORT.replace("import hil\n", f"{first}import hil\n")
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=True, timeout=100
    )
    seconds, events = json.loads(done.stdout)
    return seconds, events


def test_import_writes_nothing_opens_nothing_and_is_fast(tmp_path: Path) -> None:
    """Of a home that is read-only; the hook sees what the program does before."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    seconds, events = imported(home, first=f"import socket; socket.socket(); open({str(tmp_path / 'x')!r}, 'w'); ")
    assert events == ["socket.__new__", f"open {tmp_path / 'x'}"]
    assert not list(home.iterdir())
    assert seconds < 0.3 or imported(home)[0] < 0.3  # something else was at work


def test_every_name_is_lazy_and_known_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "hil" / "__init__.py").read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {alias.asname: f"{node.module}:{alias.name}" for node in checked.body for alias in node.names}  # type: ignore[attr-defined]
    assert typed == hil._PLACES
    assert sorted(typed) == sorted(hil.__all__)
    for name in hil.__all__:
        assert getattr(hil, name).__doc__, f"hil.{name} has no docstring"
        assert name in dir(hil)
    with pytest.raises(AttributeError, match="no attribute 'Lerner'"):
        hil.Lerner  # noqa: B018


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert "Prints:" in (ast.get_docstring(ast.parse(text)) or "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    if path.name in SHORTER:
        whole, less = SHORTER[path.name]
        assert text.count(whole) == 1
        (tmp_path / path.name).write_text(text.replace(whole, less), encoding="utf-8")
        path = tmp_path / path.name
    runpy.run_path(str(path), run_name="__main__")
    assert capfd.readouterr().out
    assert list(tmp_path.iterdir()) or path.name in PRINTS_ONLY


def test_there_are_examples() -> None:
    assert [path.name[:2] for path in EXAMPLES[:6]] == ["01", "02", "03", "04", "05", "06"]


def modules() -> list[str]:
    """Ours that have an example in a docstring."""
    names = []
    for package in PACKAGES:
        for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            path = ROOT.joinpath(*found.name.split("."))
            source = path / "__init__.py" if found.ispkg else path.with_suffix(".py")
            if ">>> " in source.read_text(encoding="utf-8"):
                names.append(found.name)
    return names


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name: str) -> None:
    module: ModuleType = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        said: list[str] = []
        assert runner.run(test, out=said.append).failed == 0, "".join(said)
    assert runner.tries > 0
