"""Real trainings, watched and asked from the page: pause, go on, outputs off now, stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browsing import CHROMIUM, NONE, ROOT, Served, Visitor, entered, visitor
from playwright.sync_api import Browser, expect

from hil.monitor.watching import key

pytestmark = [
    pytest.mark.timeout(400), pytest.mark.skipif(not CHROMIUM, reason=NONE), pytest.mark.xdist_group("monitor in a browser"),
]  # fmt: skip
expect.set_options(timeout=100_000)  # a bench is opened, on a machine that is busy
EPOCHS = 400  # more than any test waits for
LOW = 10  # nice: the page has the processors


@contextmanager
def training(folder: Path, name: str, experiment: str, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """`hil train` for so long as the block lasts."""
    run = subprocess.Popen(
        [sys.executable, "-P", "-m", "hil", "train", str(ROOT / "experiments" / experiment), "--run", f"runs/{name}", "--set",
         f"train.epochs={EPOCHS}", *settings],
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


def test_a_run_is_watched_paused_continued_and_its_outputs_put_off_without_any_question(
    browser: Browser, visit: Visitor, place: Served, folder: Path
) -> None:
    bench = f"device.bench={json.dumps(str(ROOT / 'benches/mzm_awg_scope.toml'))}"
    with training(folder, "live", "demo.toml", bench) as run, browser.new_context() as context:
        page = visit.open()
        page.locator("tr", has_text="live").locator("td.of-name a").click(timeout=100_000)  # it appears by itself
        state, outputs = page.locator(".lead .chip"), page.locator(".outputs-now .lamp")
        expect(outputs).to_have_text("on")
        expect(state).to_have_text("at work")
        os.setpriority(os.PRIO_PROCESS, run.pid, LOW)
        look = visitor(entered(context, place.look), place)
        look.open(f"/view/{key(folder / 'runs/live')}")
        expect(look.page.locator(".outputs-now .lamp")).to_have_text("on")
        assert look.page.get_by_role("button").count() == 0  # who may look has nothing to press
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
        page.get_by_role("button", name="Outputs off now").click()
        expect(outputs).to_have_text("off")
        expect(page.locator(".answer")).to_contain_text("the run has ended; outputs off, read back")
        expect(page.get_by_role("button", name="Outputs off now")).to_be_hidden()
        assert run.wait(60) != 0
        expect(look.page.locator(".outputs-now .lamp")).to_have_text("off")  # and others see it
        assert not look.wrong
    assert kinds(folder, "live").count("pause") == 1


def test_a_run_is_stopped_after_a_question(visit: Visitor, folder: Path) -> None:
    """On a twin; tests/run/test_requests.py stops one on a bench."""
    with training(folder, "asked", "digits_adfa_twin.toml") as run:
        page = visit.open()
        page.locator("tr", has_text="asked").locator("td.of-name a").click(timeout=100_000)
        state = page.locator(".lead .chip")
        expect(state).to_have_text("at work")
        page.get_by_role("button", name="Stop …").click()
        page.get_by_role("button", name="Let it run").press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert run.poll() is None
        page.get_by_role("button", name="Stop …").click()
        page.get_by_role("button", name="Stop the run").click()
        expect(state).to_have_text("interrupted")
        expect(page.get_by_role("button", name="Outputs off now")).to_be_hidden()
        assert run.wait(60) == 130
    assert kinds(folder, "asked").count("interrupt") == 1
