"""Each page in Chromium at two widths, light and dark: nothing overflows, the console is empty, axe finds nothing serious."""

from __future__ import annotations

from pathlib import Path

import pytest
from barriers import barriers
from browsing import CHROMIUM, NONE
from playwright.sync_api import Browser
from test_report import diagnostics, journal, metrics, summary, write

from hil.report import render
from hil.report.comparison import write as write_comparison
from hil.report.page import publish
from hil.report.search_figures import bars, covered, front, generations, likeness, setting, trials
from hil.report.significance import ComparisonRow, RunOutcome, Standings

WHOLE = "[...document.querySelectorAll('.stacked')].every(t => t.offsetWidth <= t.parentNode.clientWidth)"
PAGES = ("report", "compare", "search")
pytestmark = [pytest.mark.drawn, pytest.mark.skipif(not CHROMIUM, reason=NONE), pytest.mark.xdist_group("reports in a browser")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, drawing: object) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", drawing)
        return {name: globals()[f"_{name}"](folder) for name in PAGES}


def _report(folder: Path) -> Path:
    """A run with warnings, faults, and a message longer than a phone is wide."""
    facts = summary(warnings=["no better than chance: 9.4% of 180"], resources={"awg": "TCPIP::" + "0" * 90})
    faults = [*journal(), {"t": "2026-11-22T01:45:50+00:00", "kind": "fault", "message": "x" * 120, "node": {"use": "a"}}]
    run = write(folder / "run", summary=facts, journal=faults, metrics=metrics(), diagnostics=diagnostics())
    return render(run, files=False)


def _compare(folder: Path) -> Path:
    def outcome(seed: int, score: float) -> RunOutcome:
        curve = ((1e4, score / 2), (2e4, score))
        return RunOutcome(
            seed, score, score, 2e4, 3.0, "twin", "runs/one/two/seed-0", curve, (75.0, 69.0, 0.0), 2.0, 6400.0, 0.01
        )

    names = ("aDFA", "backprop in the twin", "SPSA", "last layer")
    rows = [
        ComparisonRow(name, "digits", tuple(outcome(seed, 0.5 + 0.01 * seed + 0.1 * place) for seed in range(3)))
        for place, name in enumerate(names)
    ]
    write_comparison(Standings("four learners", tuple(rows), ("Every run has the same budget.",), 180), folder)
    return folder / "compare.html"


def _search(folder: Path) -> Path:
    best, middle, points = [80.0, 82.5], [60.0, 70.0], [(80.0, 4000.0), (60.0, 2000.0)]
    figures = [
        generations(best, middle, [[80.0, 60.0], [82.5, 70.0]], "accuracy", "%"),
        front(points, points, ("accuracy (%)", "steps")),
        covered([16, 32], [0.4, 0.7], ("accuracy", "steps")), bars({"offset": 0.3, "cos1": 0.02}, 80, 0.1),
        trials([80.0, 60.0, 82.5], "accuracy", "%"),
        setting(1, "learner.use", "", ["ridge", "a long name of a class"], [80.0, 60.0], ("accuracy", "%"), 0),
        likeness([(0.1 * k, 50.0 + k) for k in range(10)], "accuracy (%)"),
    ]  # fmt: skip
    head = ("genome", "fitness", "evaluations", "wall s", "where", "values")
    row = ("6fe61813", "0.8 -4000", "1", "0.20", "local", ", ".join(f"cos{k} 0.{k}" for k in range(12)))
    shown = {
        "name": "small", "kind": "twin", "value": "69.2 %", "what": "mean accuracy", "spread": "", "state": "done",
        "claims": ["+0.1 percentage points"],
        "use": ("In any experiment", "/a/" + "long" * 40), "figures": figures, "left_out": ["Nothing."],
        "tables": [("Last generation", head, [row])], "search_text": "seed = 0", "config_text": "seed = 0",
    }  # fmt: skip
    return publish(folder / "search.html", "search.html", shown, "")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_fits_says_nothing_to_the_console_and_can_be_read_by_all(
    pages: dict[str, Path], browser: Browser, name: str
) -> None:
    said: list[str] = []
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(pages[name].as_uri())
        for scheme, widths in (("light", (390, 1400)), ("dark", (1400, 390))):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for width in widths:
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (scheme, width)
                if width == 1400:  # every table is seen whole on a desktop
                    assert page.evaluate(WHOLE)
            assert barriers(page, impacts=("serious", "critical")) == [], scheme
    assert said == []
