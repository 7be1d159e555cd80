"""Every figure of a page as SVG, PDF and CSV: print colours, the width of a column, all numbers, the same bytes each time."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from test_report import Page, diagnostics, journal, metrics, summary, write

from hil.errors import RunError
from hil.metric import named
from hil.report import render
from hil.report.comparison_figures import race
from hil.report.figure import Figure, Sheet, save
from hil.report.significance import Band

pytestmark = pytest.mark.drawn
NAMES = {"score", "loss", "node", "feedback-layer-1", "feedback-layer-2", "timeline"}
COLUMN_PT = 87 / 25.4 * 72


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawing: object) -> Path:
    run = write(tmp_path_factory.mktemp("runs") / "night-3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", drawing)
        render(run)
    return run


def rows(table: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(table.decode())))


def test_each_figure_of_the_page_has_three_files_and_the_page_links_them(run: Path) -> None:
    links = [target for target in Page((run / "report.html").read_text(encoding="utf-8")).loads if not target.startswith("#")]
    assert sorted(links) == sorted(f"figures/{name}.{end}" for name in NAMES for end in ("svg", "pdf", "csv"))
    assert {str(path.relative_to(run)) for path in (run / "figures").iterdir()} == set(links)


def test_svg_and_pdf_have_the_width_of_a_column_their_own_colours_and_text_as_text(run: Path) -> None:
    for path in (run / "figures").glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        width = re.search(r'width="([\d.]+)pt"', text)
        assert width is not None
        assert float(width[1]) == pytest.approx(COLUMN_PT, abs=0.01), path.name
        assert "<text" in text
        assert "font-size: 8px; font-family: 'DejaVu Sans', Arial" in text
        assert "var(" not in text
        assert "#0a0a" not in text  # the stand-ins of the page
        assert "<dc:date>" not in text
    for path in (run / "figures").glob("*.pdf"):
        page = path.read_bytes()
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", page)
        assert box is not None
        assert float(box[1]) == pytest.approx(COLUMN_PT, abs=0.01), path.name
        assert b"/FontFile2" in page  # TrueType, so that text stays text
        assert b"/CreationDate" not in page


def test_the_table_has_every_number_in_full_under_a_name_with_its_unit(run: Path) -> None:
    head, *lines = rows((run / "figures" / "loss.csv").read_bytes())
    assert head == ["epoch", "train loss", "validation loss"]
    assert [float(line[1]) for line in lines] == [m["loss"] for m in metrics() if m["split"] == "train"]
    head, *lines = rows((run / "figures" / "node.csv").read_bytes())
    assert head[:4] == ["drive (V)", "measured (V)", "spread (V)", "twin (V)"]
    assert [float(line[1]) for line in lines] == diagnostics()["transfer"]["measured"]
    assert [line[head.index("layer 1: share of drives (%)")] for line in lines[3:5]] == [repr(100 * (2 / 14)), ""]
    head, *lines = rows((run / "figures" / "timeline.csv").read_bytes())
    assert head == ["time (s)", "committed step", "time of the event (s)", "event"]
    assert [line[2:] for line in lines[:2]] == [["13", "fault"], ["15", "recovery"]]
    assert len(journal()) == 5


def test_the_same_run_gives_the_same_page_and_files(run: Path, tmp_path: Path) -> None:
    again = write(tmp_path / run.name)
    render(again)
    one, other = ({str(p.relative_to(r)): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in (run, again))
    assert "report.html" in one
    assert one == other


def test_a_page_alone_names_the_command_that_writes_the_files(tmp_path: Path) -> None:
    run = write(tmp_path / "a run")
    page = Page(render(run, files=False).read_text(encoding="utf-8"))
    assert f"hil report '{run}'" in page.text
    assert all(target.startswith("#") for target in page.loads)
    assert not (run / "figures").exists()


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    run = write(tmp_path / "run", summary=summary())
    (tmp_path / "elsewhere").mkdir()
    (run / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="a link"):
        render(run)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_text_of_a_table_stays_in_its_cell(tmp_path: Path) -> None:
    def draw(sheet: Sheet) -> None:
        sheet.axes()

    made = Figure("x", "X", "X.", draw, {'a "b", c (V)': (0.1, 2.0), "d\ne": ("f,g",)})
    save([made], tmp_path / "page.html")
    assert rows((tmp_path / "figures" / "x.csv").read_bytes()) == [['a "b", c (V)', "d\ne"], ["0.1", "f,g"], ["2", ""]]
    with pytest.raises(ValueError, match="small letters"):
        Figure("../x", "X", "X.", draw, {})


def test_names_at_the_ends_of_equal_lines_do_not_lie_on_each_other() -> None:
    band = Band((1e4, 2e4), (0.5, 0.9), (0.0, 0.01))
    made = race(dict.fromkeys(("one", "two", "three"), band), "race-1", "Race", named("accuracy", False))
    svg = next(made.printed()).decode()
    heights = [float(y) for y in re.findall(r'<text[^>]* y="(-?[\d.]+)"[^>]*>(?:one|two|three)</text>', svg)]
    heights += [float(y) for y in re.findall(r"<text[^>]*translate\([\d.-]+ ([\d.-]+)\)[^>]*>(?:one|two|three)</text>", svg)]
    assert len(heights) == 3
    assert min(abs(a - b) for a in heights for b in heights if a is not b) > 8  # the height of a line of text
