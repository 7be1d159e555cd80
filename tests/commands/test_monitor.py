"""hil monitor refuses before it opens anything."""

from __future__ import annotations

import builtins
import socket
from pathlib import Path
from typing import Any

import pytest

from hil.cli import run


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["monitor", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_without_nicegui_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = builtins.__import__

    def missing(name: str, *more: Any, **others: Any) -> Any:
        if name == "hil.monitor.server":
            raise ModuleNotFoundError("No module named 'nicegui'", name="nicegui")
        return inner(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert run(["monitor", str(tmp_path)]) == 2
    assert 'pip install "hil[monitor]"' in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nicegui")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(["monitor", str(tmp_path), "--port", str(port)]) == 3
    assert "cannot listen" in capsys.readouterr().err
