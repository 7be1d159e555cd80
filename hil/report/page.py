"""A run folder -> report.html, top to bottom: verdict, learning, the node, feedback, time, faults, confusion, settings, origin.

Every number comes from a file of the run folder; what is missing or damaged is said on the page, and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from hil.errors import DataError
from hil.files import write_atomic
from hil.hints import quoted
from hil.metric import Metric
from hil.plain import plain
from hil.report import contents as findings
from hil.report import figures, levels, tables
from hil.report.contents import Confusion, DrawnFeedback, DrawnSeries, DrawnStates, DrawnTransfer, Histogram, Timeline, number
from hil.report.figure import FOLDER, Figure, save
from hil.report.headline import columns_of, percent, quantity, verdict
from hil.report.levels import DrawnProgrammed
from hil.report.run_files import Facts, RunRecord, read

if TYPE_CHECKING:
    from jinja2 import Environment

T = TypeVar("T")


def render(run: Path, files: bool = True) -> Path:
    """Write report.html in the run folder, and return its path.

    Args:
        run: the folder.
        files: write every figure to figures/ too, which takes a moment.

    Raises:
        RunError: this is no run folder, or it cannot be written.
    """
    return publish(run / "report.html", "report.html", contents(read(run)), FOLDER if files else "")


def publish(target: Path, template: str, shown: Mapping[str, object], folder: str = FOLDER) -> Path:
    """Write a page, and its figures as files first; return the path of the page.

    Args:
        target: path of the page.
        template: of this package.
        shown: what the template shows, by name; the figures among it are found.
        folder: of the figures, beside the page; "" writes the page only.

    Raises:
        RunError: one of them cannot be written.
    """
    if folder:
        save(figures_in(shown), target, folder)
    write_atomic(target, page(template, {**shown, "files": quote(folder)}).encode())
    return target


def figures_in(shown: object) -> Iterator[Figure]:
    """Yield the figures among what a template shows, in order."""
    if isinstance(shown, Figure):
        yield shown
    elif isinstance(shown, Mapping | list | tuple):
        for part in shown.values() if isinstance(shown, Mapping) else shown:
            yield from figures_in(part)


def page(template: str, shown: Mapping[str, object]) -> str:
    """A page of this package with what it shows; all of it is escaped but figures, and nothing turns text round."""
    return _templates().get_template(template).render({"files": "", **shown})


def body(template: str, shown: Mapping[str, object]) -> str:
    """Return what `page` has between its frame, for another page that has the style sheet; escaped as there."""
    made = _templates().get_template(template)
    return "".join(made.blocks["content"](made.new_context({"files": "", **shown})))


@cache
def _templates() -> Environment:
    """The templates of this package, each compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("hil.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "quantity": quantity, "tied": tied}
    return made


def tied(text: str) -> str:
    """Keep a value, its uncertainty and its unit in one line.

    >>> tied("3.5 ± 0.1 V, 20 %") == "3.5\u00a0±\u00a00.1\u00a0V, 20\u00a0%"
    True
    """
    return re.sub(
        r"(?<=\d) (?=[%nµmkMGp]?(?:V|A|W|s|Hz|rad|dB|counts|pixels|ohm|turns)?\b|%)|(?<=[\d)]) (?=[±×])|(?<=[±×]) (?=[\d(])",
        "\u00a0",
        text,
    )


def _plain(value: object) -> object:
    """Make a value plain, of the same class: what is markup already stays so."""
    return type(value)(plain(value)) if isinstance(value, str) else value


def contents(record: RunRecord) -> dict[str, object]:
    """Return what the template shows, by name: figures, and text to be escaped."""
    beware = record.summary.get("warnings")
    notes = list(record.notes)
    made = record.diagnostics
    table: Confusion = _checked(findings.confusion, made, (), notes)
    curve: DrawnTransfer | None = _checked(findings.transfer, made, None, notes)
    used: tuple[Histogram, ...] = _checked(findings.histograms, made, (), notes)
    layers: tuple[DrawnFeedback, ...] = _checked(findings.feedback, made, (), notes)
    seconds: dict[str, float] = _checked(findings.seconds, made, {}, notes)
    head, journal = verdict(record, table), findings.timeline(record.journal)
    looks = findings.watched(record.journal)
    names = tables.class_names(made, table)
    metric = findings.metric_of(record)
    pairs: tuple[tuple[float, float], ...] = _checked(findings.predictions, made, (), notes)
    sequence: DrawnSeries | None = _checked(findings.series, made, None, notes)
    states: DrawnStates | None = _checked(findings.states, made, None, notes)
    written: tuple[DrawnProgrammed, ...] = _checked(lambda told: levels.programmed(record.metrics, told), made, (), notes)
    return {
        "name": record.name,
        "place": quoted(record.place),
        "notes": notes,
        "verdict": head,
        "tile_columns": columns_of(len(head.tiles)),
        "warnings": [str(line) for line in beware] if isinstance(beware, list) else [],
        "learning": [*_learning(record, metric, pairs), *_over_time(sequence, states)],
        "epochs": tables.epochs(record.metrics, metric),
        "node": figures.transfer(curve, used) if curve is not None or used else None,
        "curve": curve,
        "programmed": [{"figures": list(levels.drawn(part)), "facts": part.facts} for part in written],
        "writes": levels.budget(record.summary),
        "used": used,
        "feedback": [figures.feedback(part) for part in layers],
        "feedback_of": findings.SLOPES[layers[0].of] if layers else "",
        "feedback_at": findings.OVER[layers[0].over] if layers else "",
        "layers": tables.layers(made),
        "no_angle": made.get("no_angle", ""),
        "angle_to": made.get("angle_to", "the true gradient of the twin"),
        "traffic": tables.traffic(made),
        "operations": tables.operations(made),
        "times": tables.shares(seconds),
        "timeline": _timeline(journal),
        "sentinel": None if looks is None else figures.watched(looks),
        "events": tables.events(journal.events),
        "event_count": len(journal.events),
        "faults": sum(event.kind in figures.FAULTS for event in journal.events),
        "classes": names,
        "numbers": findings.of_numbers(record),
        "matrix": tables.matrix(table),
        "confused": tables.confused(table, names),
        "settings": tables.settings(record.config),
        "config_text": record.config_text,
        "origin": tables.origin(record.summary),
        "rest": tables.rest(record.summary),
    }


def _checked(find: Callable[[Facts], T], diagnostics: Facts, otherwise: T, notes: list[str]) -> T:
    """Return what `find` finds, or note why it makes no sense."""
    try:
        return find(diagnostics)
    except DataError as error:
        notes.append(str(error))
        return otherwise


def _learning(record: RunRecord, metric: Metric, pairs: tuple[tuple[float, float], ...]) -> list[Figure]:
    """Draw the metric, the loss, and numbers as they came, as far as they were recorded."""
    drawn = []
    splits = ("train", "validation")
    curves = {key: {s: findings.curve(record.metrics, s, key) for s in splits} for key in (metric.name, "loss")}
    scores, loss = ({s: line for s, line in found.items() if line.epochs} for found in curves.values())
    if scores:
        best, test = number(record.summary, "best_epoch"), number(record.summary, f"test_{metric.name}")
        drawn.append(figures.score(scores, best, test, metric))
    if loss:
        drawn.append(figures.loss(loss))
    if pairs:
        drawn.append(figures.predictions(pairs))
    return drawn


def _over_time(sequence: DrawnSeries | None, states: DrawnStates | None) -> Iterator[Figure]:
    """Draw a test sequence, and what is known of the states of a node with memory."""
    if sequence is not None:
        yield figures.series(sequence, states)
    if states is not None and states.memory:
        yield figures.memory(states)
    if states is not None and states.spectrum:
        yield figures.spectrum(states)


def _timeline(journal: Timeline) -> Figure | None:
    return figures.timeline(journal) if len(journal.since_s) > 1 and journal.length_s > 0 else None
