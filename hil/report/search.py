"""A search's run folder -> report.html: what was found, fitness, front, functions, importance, likeness, rivals, bench.

Of settings: the best trial so far, and the score of every trial over each setting.

Every number comes from a file of the run folder; a stage that was not reached is not on the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hil import toml
from hil.errors import RunError
from hil.feedback.feedback import from_table
from hil.files import read_text
from hil.hints import quoted
from hil.report.figure import FOLDER, Figure
from hil.report.page import publish
from hil.report.search_figures import bars, covered, front, functions, generations, likeness, setting, trials
from hil.run.folder import RunFolder
from hil.search.genetic import fronts
from hil.search.history import SEARCH, History
from hil.search.hypervolume import hypervolume
from hil.search.importance import LEAST, by_chance
from hil.search.jobs import COSTS
from hil.search.operating_point import OperatingSpace, Setting, operating_space

MOST_SETTINGS = 12  # that are drawn
Facts = Mapping[str, Any]
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def render(run: Path, files: bool = True) -> Path:
    """Write report.html in the run folder, and return its path.

    Args:
        run: the folder.
        files: write every figure to figures/ too, which takes a moment.

    Raises:
        RunError: this is no run folder, it is damaged, or it cannot be written.
    """
    folder = RunFolder.open(run)
    return publish(folder.report, "search.html", read(folder), FOLDER if files else "")


def read(folder: RunFolder) -> dict[str, object]:
    """Return what the template shows of a search, by name.

    Raises:
        RunError: it is damaged.
    """
    try:
        return contents(folder)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise RunError(
            "a search whose files do not fit together", where=str(folder.path), got=f"{type(error).__name__}: {error}",
            allowed="the files that hil search wrote", todo="restore them from a copy, or search again",
        ) from error  # fmt: skip


def contents(folder: RunFolder) -> dict[str, object]:
    """Return what the template shows, by name."""
    history = History(folder)
    summary, drawn = folder.read_json("summary.json"), folder.read_json("diagnostics.json")
    space = _space(folder)
    held, error, judged = summary.get("held_accuracy"), summary.get("held_error"), str(summary.get("judged_by", "accuracy"))
    last = _last_seen(history)
    found = "feedback that was" if space is None else "settings that were"
    tables = (_settings(summary, space), *_stages(history), _genomes(history), _generations(history))
    return {
        "name": str(summary.get("name", folder.path.name)),
        "kind": str(summary.get("provenance", "unknown")),
        "value": "" if held is None else _percent(held),
        "what": "" if held is None else f"mean {judged} on held examples with the {found} found",
        "spread": "" if held is None or error is None else _standard_error(error, history),
        "left_out": _left_out(history, last, drawn, _objectives(history, summary), "genes" if space is None else "settings"),
        "state": _state(summary),
        "claims": [_claim(claim) for claim in summary.get("claims", [])],
        "use": _use(folder, summary),
        "figures": _figures(history, last, summary, drawn, space),
        "tables": [table for table in tables if table[2]],
        "search_text": read_text(folder.path / SEARCH, toml.MOST_BYTES),
        "config_text": read_text(folder.config, toml.MOST_BYTES),
    }


def _space(folder: RunFolder) -> OperatingSpace | None:
    """The settings that were searched; None of a feedback."""
    written = toml.loads(read_text(folder.path / SEARCH, toml.MOST_BYTES))["search"].get("space")
    return operating_space(written, str(folder.path / SEARCH)) if written else None


def _use(folder: RunFolder, summary: Facts) -> tuple[str, str] | None:
    """Say how what was found is used: in words, and what to write."""
    if "feedback" in summary:
        return "In any experiment", f'[learner] feedback = "{folder.path / summary["feedback"]}"'
    return ("To train with it", f"hil train {quoted(folder.path / summary['found'])}") if "found" in summary else None


def _settings(summary: Facts, space: OperatingSpace | None) -> Table:
    found = summary.get("settings", {})
    lines = [] if space is None else [
        (one.name, found[one.name], _range(setting))
        for setting in space.settings if (one := setting.dimension).name in found
    ]  # fmt: skip
    return "Settings that were found", ("setting", "found", "searched"), lines


def _range(setting: Setting) -> str:
    one = setting.dimension
    if one.choices:
        return ", ".join(map(str, one.choices))
    kinds = [word for word, is_so in (("whole numbers", one.whole), ("logarithmic", one.logarithmic)) if is_so]
    return f"{one.low:.6g} to {one.high:.6g} {setting.unit}".strip() + (f", {', '.join(kinds)}" if kinds else "")


def _state(summary: Facts) -> str:
    if not summary:
        return "Not finished: no summary was written yet."
    return (
        f"{str(summary.get('status')).capitalize()}: {summary.get('strategy')}, {summary.get('generations')} generations, "
        f"{summary.get('evaluations'):,} trainings of which {summary.get('diverged')} diverged, "
        f"{summary.get('device_passes'):,} node evaluations, {summary.get('wall_s', 0):.0f} s. The test split was not touched."
    )


def _claim(claim: Facts) -> str:
    difference, error = 100 * claim["difference"], 100 * claim["error"]
    verdict = "better" if claim["holds"] else "not better by more than two standard errors"
    return (
        f"{difference:+.2f} percentage points against {claim['over']}: {verdict}. Mean difference over the same seeds, "
        f"standard error {error:.2f}."
    )


def _standard_error(error: float, history: History) -> str:
    """Say how well the mean is known, and over how many seeds."""
    rows = history.stages.get("confirmation", {}).get("rows", [])
    seeds = f" over {len(rows[0]['accuracies'])} seeds" if rows else ""
    return f"Standard error of this mean{seeds}: {100 * error:.2f} percentage points."


def _last_seen(history: History) -> dict[str, Facts]:
    """Genome -> its newest row: its fitness is of all its evaluations until then."""
    return {row["name"]: row for generation in history.generations for row in generation["genomes"]}


def _figures(
    history: History, last: Mapping[str, Facts], summary: Facts, drawn: Facts, space: OperatingSpace | None
) -> list[Figure]:
    found = []
    if history.generations:
        names = _objectives(history, summary)
        first = names[0]
        factor, title = _scale(first)
        name, unit = (first, "%") if factor == 100 else (title, "")
        rows = [[factor * row["fitness"][0] for row in each["genomes"]] for each in history.generations]
        best, middle = ([factor * each[key] for each in history.generations] for key in ("best", "median"))
        if space is None:
            found.append(generations(best, middle, rows, name, unit, lower=first in COSTS))
        else:
            found += _trials(history, space, factor, (name, unit))
        if len(names) > 1:
            found += _two(history, last, names)
    if drawn.get("layers"):
        found.append(_functions(history, summary, drawn["layers"][0]))
    if drawn.get("importance"):
        count = len(last)
        found.append(bars(drawn["importance"], count, 2 * by_chance(count), "gene" if space is None else "setting"))
    if drawn.get("likeness"):
        factor, title = _scale(_objectives(history, summary)[0])
        alike = [(value, factor * last[name]["fitness"][0]) for name, value in drawn["likeness"].items() if name in last]
        found.append(likeness(alike, title))
    return found


def _trials(history: History, space: OperatingSpace, factor: float, named: tuple[str, str]) -> list[Figure]:
    """Draw the best so far over the trials, and the score over each setting."""
    rows = [row for generation in history.generations for row in generation["genomes"]]
    scores = [factor * row["fitness"][0] for row in rows]
    best = max(range(len(rows)), key=lambda place: rows[place]["fitness"][0])
    drawn = [trials(scores, *named, lower=factor < 0)]
    for number, one in enumerate(space.settings[:MOST_SETTINGS], 1):
        dimension = one.dimension
        values = [row["values"][dimension.name] for row in rows]
        shown = [str(value) for value in values] if dimension.choices else values
        drawn.append(setting(number, dimension.name, one.unit, shown, scores, named, best, dimension.logarithmic))
    return drawn


def _two(history: History, last: Mapping[str, Facts], names: tuple[str, ...]) -> list[Figure]:
    """Draw the front of the first two objectives, and its hypervolume where there are two that differ between genomes."""
    factors, titles = zip(*(_scale(name) for name in names[:2]), strict=True)
    points = [tuple(row["fitness"]) for row in last.values()]
    shown = [(factors[0] * point[0], factors[1] * point[1]) for point in points]
    drawn = [front(shown, [shown[k] for k in fronts(points)], (titles[0], titles[1]))]
    worst, best = ([end(column) for column in zip(*points, strict=True)] for end in (min, max))
    box = math.prod(high - low for low, high in zip(worst, best, strict=True))
    if len(names) == 2 and box > 0:
        seen: dict[str, Facts] = {}
        evaluations, shares = [], []
        for generation in history.generations:
            seen |= {row["name"]: row for row in generation["genomes"]}
            evaluations.append(sum(row["evaluations"] for row in seen.values()))
            now = [(row["fitness"][0], row["fitness"][1]) for row in seen.values()]
            shares.append(hypervolume(now, (worst[0], worst[1])) / box)
        drawn.append(covered(evaluations, shares, (names[0], names[1])))
    return drawn


def _scale(objective: str) -> tuple[float, str]:
    """Return the factor and the title that an objective is shown with; costs are negative in a fitness."""
    if objective in COSTS:
        return -1.0, "loss" if objective == "loss" else f"{objective} until the target"
    return 100.0, f"{objective} (%)"


def _left_out(history: History, last: Mapping[str, Facts], drawn: Facts, names: tuple[str, ...], nouns: str) -> list[str]:
    """Say which figures are not on the page, and why."""
    said: list[str] = []
    if not history.generations or "importance" not in drawn:
        return said
    if not drawn["importance"]:
        told = f"needs {LEAST} genomes of different fitness; this search has {len(last)}"
        said.append(f"Which {nouns} mattered is not shown: it {told}.")
    for place, name in enumerate(names[:2]):
        if len(names) == 2 and len({row["fitness"][place] for row in last.values()}) == 1:
            said.append(f"The hypervolume is not shown: {name} is the same for all genomes.")
    return said


def _objectives(history: History, summary: Facts) -> tuple[str, ...]:
    """The objectives as people read them; "accuracy" is the merit by the metric of the task."""
    judged = str(summary.get("judged_by", "accuracy"))
    names = tuple(toml.loads(read_text(history.folder.path / SEARCH, toml.MOST_BYTES))["search"]["objectives"])
    return tuple(judged if name == "accuracy" else name for name in names)


def _functions(history: History, summary: Facts, layer: Facts) -> Figure:
    """The winner, and the best of its rivals."""
    grid = torch.tensor(layer["grid"])
    recipes = {"found": summary["recipe"]["feedback"]["g"]} if "recipe" in summary else {}
    recipes |= history.stages.get("confirmation", {}).get("drawn", {})
    curves = [(name, from_table(g)(grid).tolist()) for name, g in recipes.items()]
    return functions(layer["grid"], layer["slope"], curves, layer["edges"], layer["shares"])


def _stages(history: History) -> list[Table]:
    found: list[Table] = []
    head = ("candidate", "mean", "std over seeds", "standard error of the mean", "seeds")
    titles = {"confirmation": "Confirmation: held examples, fresh seeds", "choice": "Choice among the best, fresh seeds"}
    for name, record in reversed(history.stages.items()):
        title = titles.get(name, name.capitalize())
        if "rank_correlation" in record:
            value = record["rank_correlation"]
            title += ", rank correlation with the twin " + ("unknown" if value is None else f"{value:+.2f}")
        rows = sorted(record["rows"], key=lambda row: -row["mean"])
        lines = [
            (row["name"], _percent(row["mean"]), _percent(row["std"]), _percent(row["error"]), str(len(row["accuracies"])))
            for row in rows
        ]
        found.append((title, head, lines))
    return found


def _genomes(history: History) -> Table:
    if not history.generations:
        return "", (), ()
    rows = sorted(history.generations[-1]["genomes"], key=lambda row: -row["fitness"][0])
    head = ("genome", "fitness", "evaluations", "wall s", "where", "values")
    lines = [
        (
            row["name"], " ".join(f"{value:.4g}" for value in row["fitness"]), str(row["evaluations"]), f"{row['wall_s']:.2f}",
            row["where"], _values(row),
        )
        for row in rows
    ]  # fmt: skip
    return "Last generation", head, lines


def _values(row: Facts) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row["values"].items()
    )


def _generations(history: History) -> Table:
    head = ("generation", "best", "median", "diversity", "genomes", "diverged", "wall s", "evaluations/s", "seeds")
    lines = [
        (
            str(each["generation"] + 1), f"{each['best']:.4g}", f"{each['median']:.4g}", f"{each['diversity']:.2f}",
            str(len(each["genomes"])), str(sum(died is not None for row in each["genomes"] for died in row["died_at"])),
            f"{each['wall_s']:.1f}", f"{each['evaluations_per_s']:.1f}", json.dumps(each["seeds"]),
        )
        for each in history.generations
    ]  # fmt: skip
    return "Generations", head, lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}\u00a0%"
