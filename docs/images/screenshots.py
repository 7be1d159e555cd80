"""Take the pictures of pages that the docs show: NAME_wide.png at 1400 px or so and NAME_phone.png at 390 px.

    python docs/images/screenshots.py                                                        the pages of hil monitor
    python docs/images/screenshots.py report=runs/demo/report.html compare=compare/compare.html    pages that were written

The pages of hil monitor are the lines of PICTURES, over made run folders and a training that is at work. The page called report
becomes report.png besides, for the README. Pictures have few colours, so that each stays below 150 kB.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from browsing import Served, chromium, served, visitor  # noqa: E402
from monitor_folders import made  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402

from hil.monitor.watching import key  # noqa: E402

WIDTHS = {"wide": (1400, 900), "phone": (390, 844)}
TALL = {"calibration": {"wide": (1200, 1720), "phone": (390, 1720)}}  # a page whose figures are looked at
COLOURS = 256  # of a picture: text and lines need no more
EPOCHS, MORE = 10, 200  # of the training, before its picture is taken, and until its end
PICTURES = (  # name, address, what must be drawn; {NAME} is the key of a run
    ("monitor_overview", "/", "td.of-name a"),
    ("monitor_run", "/view/{mzm-live}", ".card svg[aria-label^='Reading']"),
    ("monitor_report", "/report/{mzm-adfa}", ".reported"),
    ("monitor_compare", "/compare?runs={mzm-adfa},{mzm-dfa},{mzm-low-rate}", ".differ"),
)


def lab(runs: Path) -> None:
    """Make the runs that the pictures show."""
    made(runs / "mzm-adfa", "mzm-adfa", "adfa", rate=0.7, epochs=12, days=5, tags=("paper", "best"), note="laser at 3 dBm")
    made(runs / "mzm-dfa", "mzm-dfa", "dfa", rate=0.4, epochs=12, days=5, tags=("paper",))
    made(runs / "mzm-low-rate", "mzm-low-rate", "adfa", rate=0.2, epochs=12, days=4, lr=2e-4)
    made(runs / "slm-scattering", "slm-scattering", "ridge", rate=0.9, epochs=3, days=3, device="benches/slm_camera.toml")
    made(runs / "board-spide", "board-spide", "spide", rate=0.3, epochs=9, days=2, status="fault",
         device="benches/spiking_board.toml", note="USB cable replaced afterwards")  # fmt: skip
    for seed in range(4):
        made(runs / f"mesh-seed-{seed}", f"mesh-seed-{seed}", "pat", seed, 10, 0.35 + 0.02 * seed, days=1, tags=("mesh",),
             device="benches/mzi_mesh.toml", status="interrupted" if seed == 3 else "done")  # fmt: skip


def take(browser: Browser, place: Served, runs: Path) -> None:
    """Take all pictures, at both widths."""
    names = {path.name: key(path) for path in runs.iterdir()}
    for width, (across, down) in WIDTHS.items():
        with browser.new_context(viewport={"width": across, "height": down}, color_scheme="light") as context:
            visit = visitor(context, place)
            for name, address, drawn in PICTURES:
                page = visit.open(address.format_map(names))
                page.wait_for_selector(drawn)
                page.wait_for_timeout(1500)  # the charts are drawn after their page
                save(page.screenshot(), f"{name}_{width}.png")


def take_written(pages: dict[str, Path]) -> None:
    """Take the pictures of pages that lie in files."""
    with chromium() as browser:
        for name, path in pages.items():
            sizes = {f"{name}_{kind}.png": size for kind, size in TALL.get(name, WIDTHS).items()}
            for target, (width, height) in {**sizes, **({"report.png": (1100, 1300)} if name == "report" else {})}.items():
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(path.resolve().as_uri())
                save(page.screenshot(), target)
                page.close()


def save(shot: bytes, name: str) -> None:
    """Write a picture with few colours beside this file."""
    target = Path(__file__).with_name(name)
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(target, optimize=True)  # thin lines keep their colours
    print(f"{name}  {target.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Make the runs, train one, and take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        runs.mkdir()
        lab(runs)
        live = runs / "mzm-live"
        training = subprocess.Popen(
            [sys.executable, "-m", "hil", "train", "experiments/demo.toml", "--run", str(live), "--set", "name=mzm-live",
             f"train.epochs={MORE}"],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not (live / "metrics.jsonl").exists() or (live / "metrics.jsonl").read_bytes().count(b"\n") < 2 * EPOCHS:
                assert training.poll() is None
                time.sleep(0.2)
            with served(Path(folder), "runs") as place, chromium() as browser:
                take(browser, place, runs)
        finally:
            training.terminate()
            training.wait()


if __name__ == "__main__":
    if sys.argv[1:]:
        take_written({name: Path(path) for name, path in (argument.split("=", 1) for argument in sys.argv[1:])})
    else:
        main()
