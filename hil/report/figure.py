"""A figure, drawn for the page and for print, and its data as a table.

page     SVG inside the HTML; colours are stand-ins that become variables of the style sheet, so that one drawing serves light
         and dark
print    SVG and PDF of 87 mm, the width of one column of a journal; 8 pt; text stays text
table    CSV: a column for each quantity, with its unit in the header, in full precision; a column that is shorter than the
         others ends with empty cells
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.errors import RunError
from hil.files import there, write_atomic

if TYPE_CHECKING:
    from matplotlib import figure as mpl
    from matplotlib.axes import Axes

FOLDER = "figures"  # beside the page
ENDS = ("svg", "pdf", "csv")
MM_PER_INCH = 25.4
FONT = "DejaVu Sans"  # comes with matplotlib, so that a drawing is the same on every machine
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.6, 1.4, 1.6)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
Cell = float | str
Columns = Mapping[str, Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Look:
    """Colours and sizes of a drawing.

    Args:
        ink, muted, grid, surface, bad, good: colours of text, labels, lines of the grid, paper, faults and repairs.
        series: colours of the curves.
        width_in: of the drawing.
        font_pt: of all its text.
        scale: of heights, lines and markers; 1 on the page.
    """

    ink: str
    muted: str
    grid: str
    surface: str
    bad: str
    good: str
    series: tuple[str, ...]
    width_in: float
    font_pt: float
    scale: float

    @property
    def settings(self) -> dict[Any, Any]:
        """Settings of matplotlib; names inside the SVG are the same every time."""
        return {
            "svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "hil", "text.parse_math": False,
            "font.size": self.font_pt, "font.family": FONT, "text.color": self.ink,
            "axes.labelsize": "medium", "xtick.labelsize": "medium", "ytick.labelsize": "medium",
            "axes.edgecolor": self.grid, "axes.labelcolor": self.muted, "axes.facecolor": "none", "figure.facecolor": "none",
            "xtick.color": self.grid, "ytick.color": self.grid, "xtick.labelcolor": self.muted, "ytick.labelcolor": self.muted,
            "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8 * self.scale,
            "xtick.major.size": 3.5 * self.scale, "ytick.major.size": 3.5 * self.scale, "axes.unicode_minus": True,
            "axes.grid": True, "axes.axisbelow": True, "grid.color": self.grid, "grid.linewidth": 0.6 * self.scale,
            "lines.linewidth": 1.8 * self.scale, "lines.solid_capstyle": "round",
            "legend.frameon": False, "legend.fontsize": "medium",
        }  # fmt: skip


PAGE = Look(
    "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06", tuple(f"#0a0a1{k}" for k in range(1, 9)), 4.7, 10.0, 1.0
)
PRINT = Look(
    "#000000", "#262626", "#c8c8c8", "#ffffff", "#b3261e", "#1c7c4a",
    ("#1f5fbf", "#b25605", "#0b7a6d", "#7d4cc2", "#b3264f", "#6b7a10", "#8a5a2b", "#5b6470"), 87 / MM_PER_INCH, 8.0, 0.75,
)  # fmt: skip
VARIABLES = {
    PAGE.ink: "--ink", PAGE.muted: "--muted", PAGE.grid: "--grid", PAGE.surface: "--surface", PAGE.bad: "--bad",
    PAGE.good: "--good", **{colour: f"--series-{k}" for k, colour in enumerate(PAGE.series, 1)},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sheet:
    """An empty drawing and how it is to look: what the drawing functions are given."""

    figure: mpl.Figure
    look: Look

    def axes(self) -> Axes:
        """Return axes that fill the sheet."""
        return self.figure.add_subplot()

    def series(self, number: int) -> str:
        """Return the colour of curve `number`, from 0; the colours repeat."""
        return self.look.series[number % len(self.look.series)]

    def pt(self, size: float) -> float:
        """Return a line width or a marker size, in points of the page, as this sheet has it."""
        return size * self.look.scale

    def line(self, axes: Axes, x: Sequence[float], y: Sequence[float], number: int, label: str, width: float = 1.8) -> None:
        """Draw curve `number` in a colour and a dash of its own, with marks if it has few points."""
        axes.plot(
            x, y, color=self.series(number), ls=DASHES[number % len(DASHES)], lw=self.pt(width), label=label,
            marker=MARKERS[number % len(MARKERS)] if len(x) <= 25 else "", **self.dot(4.5),
        )  # fmt: skip

    def dot(self, size: float, edge: float = 0.6) -> dict[str, Any]:
        """Return size and edge of a dot that stands out from the line beneath it."""
        return {"ms": self.pt(size), "mec": self.look.surface, "mew": self.pt(edge)}

    def legend(self, axes: Axes, most: int = 4) -> None:
        """Write the legend above the axes, in as many columns as there is room for, `most` at most."""
        _, names = axes.get_legend_handles_labels()
        if not names:
            return
        room = 72 * self.look.width_in / self.look.font_pt - 5  # em, beside the ticks
        fitting = [n for n in range(1, most + 1) if sum(_widths(names, n)) <= room]
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=max(fitting, default=1), borderaxespad=0.2,
            handlelength=1.4, columnspacing=1.2, handletextpad=0.5, labelspacing=0.3,
        )  # fmt: skip


def _widths(names: Sequence[str], columns: int) -> list[float]:
    """Return the width of every column of a legend, in em; matplotlib fills as many, the first ones with one name more.

    >>> len(_widths(["one", "two", "three", "four"], 3))
    3
    """
    columns = min(columns, len(names))
    rows, more = divmod(len(names), columns)
    starts = [rows * column + min(column, more) for column in range(columns + 1)]
    return [0.58 * max(map(len, names[start:end])) + 3.1 for start, end in pairwise(starts)]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a page.

    Args:
        name: of its files; unique on its page; small letters, digits, "-".
        title: above it on the page.
        told: what it shows, in a sentence, for whoever cannot see it.
        draw: draws it on an empty sheet.
        columns: its data; name and unit of each quantity, as "drive (V)", and its values.
        height_in: on the page.
        aside: beside the title.
    """

    name: str
    title: str
    told: str
    draw: Callable[[Sheet], None]
    columns: Columns
    height_in: float = 2.8
    aside: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9-]+", self.name):
            raise ValueError(f"a name of small letters, digits and hyphens, not {self.name!r}")

    @property
    def files(self) -> tuple[str, ...]:
        """Names of its files."""
        return tuple(f"{self.name}.{end}" for end in ENDS)

    @property
    def svg(self) -> str:
        """The figure as an SVG element for HTML: no prologue, no metadata, and ids that begin with the name."""
        with _style(PAGE):
            return _inline(_drawn(self, PAGE), self.name, self.told)

    def printed(self) -> Iterator[bytes]:
        """Yield the figure as SVG and as PDF for print, both without a date."""
        with _style(PRINT):
            made = _drawn(self, PRINT)
            made.set_facecolor(PRINT.surface)
            text = io.StringIO()
            made.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            yield text.getvalue().replace(f"'{FONT}'", f"'{FONT}', Arial, Helvetica, sans-serif").encode()
            page = io.BytesIO()
            made.savefig(page, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
            yield page.getvalue()

    def table(self) -> bytes:
        """Return the data as CSV in UTF-8: one header row, then a row for each value."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(self.columns)
        rows.writerows(zip_longest(*map(_cells, self.columns.values()), fillvalue=""))
        return text.getvalue().encode()


def heading(name: str, unit: str = "") -> str:
    """Return the name of an axis or a column with its unit.

    >>> heading("drive", "V"), heading("loss"), heading("gain", "1")
    ('drive (V)', 'loss', 'gain')
    """
    return f"{name} ({unit})" if unit and unit != "1" else name


def slug(text: str) -> str:
    """Return `text` as a part of a figure's name.

    >>> slug("Edge response 2")
    'edge-response-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"


def save(figures: Iterable[Figure], page: Path, folder: str = FOLDER) -> Path:
    """Write every figure as SVG, PDF and CSV into a folder beside its page, and return the folder.

    The same figures give the same bytes. Other files of the folder stay.

    Args:
        figures: of the page.
        page: its path.
        folder: name of the folder.

    Raises:
        RunError: the folder is a link or a file, or cannot be written.
    """
    target = page.with_name(folder)
    if there(target) and (target.is_symlink() or not target.is_dir()):
        raise RunError(
            "not a folder", where=str(target), got="a link" if target.is_symlink() else "a file", allowed="a folder",
            todo="remove it, and make the page again",
        )  # fmt: skip
    for figure in figures:
        for name, content in zip(figure.files, (*figure.printed(), figure.table()), strict=True):
            write_atomic(target / name, content)
    return target


def _cells(values: Sequence[Cell]) -> list[str]:
    return [value if isinstance(value, str) else repr(float(value)).removesuffix(".0") for value in values]


def _style(look: Look) -> Any:
    import matplotlib

    return matplotlib.rc_context(look.settings)


def _drawn(figure: Figure, look: Look) -> mpl.Figure:
    """Draw and lay out, once for all formats."""
    from matplotlib.figure import Figure as Blank

    made = Blank(figsize=(look.width_in, figure.height_in * look.scale), layout="constrained")
    figure.draw(Sheet(made, look))
    return made


def _inline(made: mpl.Figure, name: str, told: str) -> str:
    drawn = io.StringIO()
    made.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    view = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)  # the family is the page's; as matplotlib < 3.11 has it
    body = body.replace(f" font-family: '{FONT}';", "")  # as later ones have it
    for stand_in, variable in VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    head = f'<svg {view.group(0) if view else ""} role="img" aria-label="{escape(told)}">'
    return re.sub(r"\n\s*", "\n", f"{head}<title>{escape(told)}</title>{body}")
