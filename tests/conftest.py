"""One thread a process: the suite runs served benches beside itself, and two torch processes with two threads each thrash."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import ahead
import pytest
from forks import Forks
from warm import Warm, blank, listen, once

if TYPE_CHECKING:
    from playwright.sync_api import Browser

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before torch is imported, and for every process that a test starts

subprocess.Popen = Warm  # type: ignore[misc]
gc.disable()  # until all is imported and collected: what is there then is never garbage, and much to look through each time
os.environ.pop("COLUMNS", None)  # what is printed does not depend on the terminal, or on whoever distributes the tests

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script: hil keeps that, tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup: the same
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def machine_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lock folder of a machine that this test process has for itself, as tests use the same addresses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIL_MACHINE_LOCKS", str(tmp_path_factory.mktemp("machine") / "locks"))
        yield


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this process has read each file of TOML since, by its name."""
    from hil.config import read

    seen: Counter[str] = Counter()
    inner = read.read_text

    def counted(path: Path, *more: object) -> str:
        seen[Path(path).name] += 1
        return inner(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(read, "read_text", counted)
    return seen


@pytest.fixture(scope="session", autouse=True)
def drawing() -> Iterator[object]:
    """Figures are made, and drawn only for the tests that are marked so: it is two thirds of what a small run takes."""
    from matplotlib.figure import Figure

    from hil.report import figure

    with pytest.MonkeyPatch.context() as patch:
        inner = Figure.savefig
        patch.setattr(Figure, "savefig", blank)
        patch.setattr(figure, "_drawn", once(figure._drawn))
        yield inner


@pytest.fixture(scope="session")
def one_browser() -> Iterator[tuple[Browser, asyncio.AbstractEventLoop]]:
    """Chromium, which starts once, and the event loop of Playwright, which counts as running."""
    from browsing import chromium

    with chromium() as found:
        loop = asyncio.get_running_loop()
        yield found, loop
        asyncio._set_running_loop(loop)


@pytest.fixture(scope="module")
def browser(one_browser: tuple[Browser, asyncio.AbstractEventLoop]) -> Iterator[Browser]:
    """Chromium for the tests of a file; those of other files may have event loops of their own."""
    found, loop = one_browser
    asyncio._set_running_loop(loop)
    yield found
    asyncio._set_running_loop(None)


@pytest.fixture(autouse=True)
def _drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, drawing: object) -> None:
    if "drawn" in request.keywords:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", drawing)
        monkeypatch.setattr(Warm, "drawn", True)


@pytest.fixture(autouse=True)
def _cold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "cold" in request.keywords:
        monkeypatch.setattr(Warm, "cold", True)


IMPORTED = ("torch._dynamo", "scipy.signal", "hil.cli", "hil.commands.train", "matplotlib.backends.backend_svg")
SLOW = (
    "test_pages", "test_live_run", "test_pages_in_browser", "test_calibration_in_browser", "test_tutorials", "test_requests",
    "test_cluster",
    "test_guardian", "test_guarded_benches", "test_nothing_holds_up_the_guardian", "test_guardian_locks", "test_own_device",
    "test_kill", "test_sentinel", "test_search", "test_system", "test_cli",
    "test_docs_recipes", "test_face", "test_notebooks", "test_resume_without_script", "test_spide", "test_frame_shape",
    "test_many_channels", "test_compare", "test_modules", "test_programmed_channels", "test_open_bench",
    "test_targets", "test_auxiliaries", "test_physical", "test_corrected_twin", "test_replay", "test_stages",
    "test_conformance", "test_train_in_python", "test_spsa", "test_doctor", "test_signals", "test_faults_end_to_end",
    "test_lock", "test_board_faults_end_to_end", "test_waveform_steps", "test_board_faults", "test_board_training",
    "test_host", "test_hostile_folder", "test_new", "test_hands_end_to_end", "test_same_twin_two_ways", "test_resume",
    "test_calibrate", "test_report",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, so that none of them begins when the other processes have nothing left to do."""
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 20)  # graphs of figures and of gradients come and go: each look at them costs


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "drawn: the figures of its pages are drawn")
    config.addinivalue_line("markers", "xdist_group(name): files that one process runs, as they share what takes long to start")
    config.addinivalue_line("markers", "cold: every process that it starts is a program of its own; see warm.py")
    listen()
    if config.getoption("--forks") and config.args == ["tests"] and find_spec("mkdocs"):
        ahead.begin()
    if count := config.getoption("--forks"):
        config.pluginmanager.register(Forks(count, IMPORTED))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--forks", type=int, default=0, metavar="N", help="run the files of tests in N forks; see forks.py")
    parser.addoption("--bench", default=None, help="a bench file: run tests/hardware on it, outputs will be driven")


@pytest.fixture(autouse=True)
def _search_path() -> Iterator[None]:
    """Leave no folder of a test in the search path, where another test's module of the same name would hide behind it."""
    before = list(sys.path)
    yield
    sys.path[:] = before
