"""A real training through a virtual bench, watched and asked from the page: pause, go on, stop, outputs off now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browsing import CHROMIUM, NONE, ROOT, Served, served, visitor
from playwright.sync_api import Browser, BrowserContext, expect

from hil.monitor.watching import key

pytestmark = [pytest.mark.timeout(400), pytest.mark.skipif(not CHROMIUM, reason=NONE)]
expect.set_options(timeout=100_000)  # a bench is opened, on a machine that is busy
EPOCHS = 400  # more than any test waits for


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """The served pages, and the folder that they are about."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "runs").mkdir()
    with served(folder, "runs") as found:
        yield found, folder


@pytest.fixture(scope="module")
def wide(browser: Browser, place: tuple[Served, Path]) -> Iterator[BrowserContext]:
    """A wide screen of one who may change."""
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        visitor(context, place[0]).page.close()
        yield context


@contextmanager
def training(folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """`hil train` of the demo for so long as the block lasts."""
    run = subprocess.Popen(
        [sys.executable, "-P", "-m", "hil", "train", str(ROOT / "experiments/demo.toml"), "--run", f"runs/{name}", "--set",
         f"train.epochs={EPOCHS}", f"device.bench={json.dumps(str(ROOT / 'benches/mzm_awg_scope.toml'))}"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield run
    finally:
        if run.poll() is None:
            run.terminate()
        run.wait(60)


def kinds(folder: Path, name: str) -> list[str]:
    lines = (folder / "runs" / name / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["kind"] for line in lines]


def test_a_run_is_watched_paused_continued_and_stopped(wide: BrowserContext, place: tuple[Served, Path]) -> None:
    served, folder = place
    visit = visitor(wide, served, served.base)
    page = visit.page
    with training(folder, "one") as run:
        page.locator("td.of-name a").click(timeout=100_000)  # it appears by itself
        state, outputs = page.locator(".lead .chip"), page.locator(".outputs-now .lamp")
        expect(outputs).to_have_text("on")
        expect(state).to_have_text("at work")
        chart = page.locator(".chart").nth(1)
        expect(chart).to_be_visible()
        seen = chart.get_attribute("aria-label")
        expect(chart).not_to_have_attribute("aria-label", seen or "")  # it grows
        page.get_by_role("button", name="Pause").click()
        expect(state).to_have_text("paused")
        expect(outputs).to_have_text("off")
        page.get_by_role("button", name="Go on").click()
        expect(state).to_have_text("at work")
        expect(outputs).to_have_text("on")
        page.get_by_role("button", name="Stop …").click()
        page.get_by_role("button", name="Let it run").press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert run.poll() is None
        page.get_by_role("button", name="Stop …").click()
        page.get_by_role("button", name="Stop the run").click()
        expect(state).to_have_text("interrupted")
        expect(outputs).to_have_text("off")
        expect(page.get_by_role("button", name="Outputs off now")).to_be_hidden()
        assert run.wait(60) == 130
    assert not visit.wrong
    said = kinds(folder, "one")
    assert said.count("pause") == 1
    assert said.count("interrupt") == 1


def test_outputs_go_off_at_once_without_any_question(
    browser: Browser, wide: BrowserContext, place: tuple[Served, Path]
) -> None:
    served, folder = place
    with training(folder, "two") as run, browser.new_context() as context:
        look = visitor(context, served, served.look)
        look.page.locator("tr", has_text="two").locator("td.of-name a").click(timeout=100_000)
        expect(look.page.locator(".outputs-now .lamp")).to_have_text("on")
        assert look.page.get_by_role("button").count() == 0  # who may look has nothing to press
        visit = visitor(wide, served, f"{served.base}/view/{key(folder / 'runs/two')}")
        visit.page.get_by_role("button", name="Outputs off now").click()
        expect(visit.page.locator(".outputs-now .lamp")).to_have_text("off")
        expect(visit.page.locator(".answer")).to_contain_text("the run has ended; outputs off, read back")
        assert run.wait(60) != 0
        expect(look.page.locator(".outputs-now .lamp")).to_have_text("off")  # and others see it
        assert not visit.wrong + look.wrong
