"""Locks of their own for tests of the guardian, instruments that outlive every trainer, and programs to be killed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watched import AWG, HERE, Child

from sim_devices.bench.board import RunningBoard, VirtualBoard, board_server
from sim_devices.bench.description import VirtualBench
from sim_devices.bench.served import RunningBench, build


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own locks, and own run folders."""
    monkeypatch.setenv("HIL_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("HIL_MACHINE_LOCKS", str(tmp_path / "machine"))
    (tmp_path / "run").mkdir()


@pytest.fixture
def table() -> Iterator[RunningBench]:
    """A generator, served from this process, so that it outlives every trainer."""
    with build(VirtualBench((AWG,), transport="both")) as bench:
        yield bench


@pytest.fixture
def line() -> Iterator[RunningBoard]:
    with board_server(VirtualBoard()) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def light(resource: str, then: str, wire: str = "visa", stderr: int = subprocess.PIPE, **more: Any) -> Child:
        told = {"resource": resource, "run": str(tmp_path / "run"), "wire": wire, "then": then, **more}
        started.append(Child([str(HERE / "guardian_child.py"), json.dumps(told)], stderr))
        return started[-1]

    yield light
    for child in started:
        child.end()
