"""One folder of runs, one server and one window of the browser for all tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Served, Visitor, entered, served, visitor
from lab_folder import fill
from playwright.sync_api import Browser, BrowserContext


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs."""
    root = tmp_path_factory.mktemp("lab")
    fill(root / "runs")
    return root


@pytest.fixture(scope="session")
def place(folder: Path) -> Iterator[Served]:
    """The served pages."""
    with served(folder, "runs") as found:
        yield found


@pytest.fixture(scope="session")
def windows() -> dict[str, BrowserContext]:
    """Those that are open; they end with the browser."""
    return {}


@pytest.fixture
def wide(browser: Browser, place: Served, windows: dict[str, BrowserContext]) -> BrowserContext:
    """A wide screen of one who may change, whose browser keeps what all pages need."""
    if "wide" not in windows:
        windows["wide"] = entered(browser.new_context(viewport={"width": 1400, "height": 900}), place.link)
    return windows["wide"]


@pytest.fixture
def visit(wide: BrowserContext, place: Served) -> Iterator[Visitor]:
    """A new page, empty as yet, of one who may change."""
    found = visitor(wide, place)
    yield found
    assert not found.wrong
    found.page.close()
