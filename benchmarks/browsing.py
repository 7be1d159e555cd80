"""A served monitor, and a headless Chromium that notes what a page must not do: errors, dialogs, requests to other hosts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NONE = "no chromium here: install it, or name it in PLAYWRIGHT_CHROMIUM"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser")  # the first needs half the processor's time of the others
CHROMIUM = os.environ.get("PLAYWRIGHT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
ROOT = Path(__file__).resolve().parents[1]
START_S = 60.0


@dataclass
class Served:
    """A monitor that listens.

    Args:
        base: address without the key.
        link: for one who may change; "" where nobody may.
        look: for one who may look.
    """

    base: str
    link: str
    look: str
    process: subprocess.Popen[str]


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[Served]:
    """`hil monitor` in `folder`, until the block is left."""
    log = folder / "monitor.log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "hil", "monitor", *arguments], cwd=folder, stdout=out, stderr=subprocess.STDOUT, text=True,
            env={**{k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        end = time.monotonic() + START_S
        while "Ctrl-C ends it" not in (said := log.read_text(encoding="utf-8")):
            assert process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)
        links = dict(re.findall(r"^(monitor|read-only) +(http://\S+)", said, re.M))
        yield Served(links["read-only"].partition("/?")[0], links.get("monitor", ""), links["read-only"], process)
        assert "Traceback" not in log.read_text(encoding="utf-8")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser, which CHROMIUM names."""
    with sync_playwright() as playwright:
        alone = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # Chromium has no sandbox for root
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu", *alone])  # or it imitates one
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """Somebody who looks at the pages, and what went wrong in the browser meanwhile."""

    page: Page
    base: str
    wrong: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        """Go to a page, or by a link with its key, and wait until it is drawn."""
        self.page.goto(path if path.startswith(self.base) else self.base + path)
        self.page.wait_for_selector("h1")
        return self.page


def entered(context: BrowserContext, link: str) -> BrowserContext:
    """Give `context` the cookie of a link; no page is loaded."""
    assert context.request.get(link).ok
    return context


def visitor(context: BrowserContext, served: Served) -> Visitor:
    """Listen to a new page, which is empty as yet."""
    page = context.new_page()
    found = Visitor(page, served.base)
    page.on("console", lambda said: found.wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.wrong.append(str(error)))
    page.on("dialog", lambda dialog: (found.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: _elsewhere(found, request.url))
    page.set_default_timeout(20_000)
    return found


def _elsewhere(found: Visitor, url: str) -> None:
    if not url.startswith((found.base + "/", "data:", "blob:")):
        found.wrong.append(f"request to {url}")
