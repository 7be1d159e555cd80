"""Take the pictures of pages that the documentation shows.

    python docs/images/screenshots.py report=runs/demo/report.html compare=compare/compare.html

Each page becomes NAME_wide.png (1400 px, its upper part) and NAME_phone.png (390 px), with Chromium through playwright; the
page called report becomes report.png besides, for the README. Pictures have 64 colours, so that each stays below 150 kB.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
WIDTHS = {"wide": (1400, 1000), "phone": (390, 844)}
COLOURS = 64


def main(pages: dict[str, Path]) -> None:
    """Write the pictures of every page beside this file."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, path in pages.items():
            for kind, (width, height) in WIDTHS.items():
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(path.resolve().as_uri())
                save(page.screenshot(), HERE / f"{name}_{kind}.png")
                page.close()
            if name == "report":
                page = browser.new_page(viewport={"width": 1100, "height": 1300})
                page.goto(path.resolve().as_uri())
                save(page.screenshot(), HERE / "report.png")
        browser.close()


def save(shot: bytes, path: Path) -> None:
    """Write a picture with few colours."""
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main({name: Path(path) for name, path in (argument.split("=", 1) for argument in sys.argv[1:])})
