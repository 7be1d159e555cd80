"""Best-so-far of searches over evaluations and device passes, and whether the genetic algorithm is better than the others.

    python benchmarks/search_curves.py [--quick] [--repeats 20] [--nodes mzm tabulated deep] [--strategies genetic random …]

nodes        mzm         experiments/search_mzm_digits.toml: a modulator, two hidden layers
             tabulated   experiments/search_tabulated.toml: a node of which only a curve is known
             deep        the modulator with four hidden layers of 60
strategies   genetic, random, cma, ipop (CMA-ES with restarts), genetic+race (successive halving within a generation), all
             by the accuracy, and genetic+loss (by the loss), at equal evaluations and on the same data

A curve has a point a generation: the best genome so far, as the search itself ranks it, trained anew with fresh seeds and
judged by the accuracy on held examples that the search never saw. The seeds of a repeat are the same for every strategy.

The table is written after every search, to runs/search_curves/table.md and table.json: accuracy at the end (mean, standard
deviation, worst), its mean over the whole search, device passes, and two-sided p values at equal evaluations of the genetic
algorithm against every other: Mann-Whitney U, and Wilcoxon's signed ranks of the pairs of one repeat. curves.json holds the
points of every search, figures/ the mean curves against evaluations and against device passes.

One process and one thread. Searches and judgements live in runs/search_curves/; what is done is not repeated, a search that was
interrupted goes on, and the same command goes on with the rest. `--hours 2` stops before the search that would begin later.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import mannwhitneyu, wilcoxon

from hil.build.search import SearchBuilder, completed
from hil.config.read import dump
from hil.config.search import base_experiment, read_search
from hil.files import write_atomic
from hil.report.figure import Figure, Sheet, save
from hil.run.folder import RunFolder
from hil.search.archive import Archive
from hil.search.evaluator import Here
from hil.search.history import History
from hil.search.jobs import Job
from hil.search.loop import Generation, search
from hil.search.stages import seeds

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "runs" / "search_curves"
MZM, TABULATED = (ROOT / "experiments" / f"search_{name}.toml" for name in ("mzm_digits", "tabulated"))
DEEP = ("network.widths=[64, 60, 60, 60, 60, 10]",)
NODES: Mapping[str, tuple[Path, tuple[str, ...]]] = {"mzm": (MZM, ()), "tabulated": (TABULATED, ()), "deep": (MZM, DEEP)}
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "genetic": {},
    "random": {"strategy": "random"},
    "cma": {"strategy": "cma"},
    "ipop": {"strategy": "ipop"},
    "genetic+race": {},
    "genetic+loss": {"objectives": ("loss",)},
}
Curve = list[dict[str, Any]]  # evaluations, passes, genome, accuracy


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of every search and judgement."""

    population: int = 16
    generations: int = 12
    epochs: int = 2
    examples: int | None = None
    seeds: int = 5  # fresh ones, of a judgement


QUICK = Size(population=6, generations=3, epochs=2, examples=256, seeds=2)


def text_of(node: str, strategy: str, repeat: int, size: Size) -> str:
    """Return the search file of a search."""
    path, changes = NODES[node]
    file = read_search(path)
    table = file.search.model_copy(update={
        "population": size.population, "generations": size.generations, "elites": min(3, size.population - 1),
        **STRATEGIES[strategy],
    })  # fmt: skip
    train = file.train.model_copy(update={"epochs": size.epochs, "repeats": 1, "examples": size.examples})
    evaluate = file.evaluate.model_copy(update={"workers": 1, "chunk": size.population})
    chosen = {"seed": repeat, "set": (*file.set, *changes), "search": table, "train": train, "evaluate": evaluate}
    text = dump(file.model_copy(update=chosen))
    if strategy.endswith("+race"):
        text += f"\n[race]\nepochs = {[size.epochs // 2]}\nkeep = [0.5]\n"
    return text.replace(f'base = "{file.base}"', f'base = "{(path.parent / file.base).as_posix()}"')


def searched(builder: SearchBuilder, folder: Path) -> Iterator[tuple[int, int, str, Job]]:
    """Go through a search; give evaluations, passes, the best genome so far and how it is trained, after each generation."""
    data = builder.data()
    history, space = History(RunFolder(folder)), builder.space(data)
    archive = Archive(builder.objectives, builder.most_steps(data))
    evaluator = Here(builder.trainer())
    evaluations = 0
    problem, generator = builder.problem(space), builder.generator(space)
    for point in search(builder.plan(), space, problem, generator, evaluator, archive, history):
        if isinstance(point, Generation):
            evaluations += point.evaluations
            (best,) = archive.best(1)
            passes = sum(found.passes for genome in archive.genomes for found in archive.outcomes(genome))
            yield evaluations, passes, best.digest(), Job("", space.recipe(best), 0, builder.file.train.epochs, "held")


def curve_of(node: str, strategy: str, repeat: int, size: Size, folder: Path) -> Curve:
    """The curve of a search; read, gone on with, or made."""
    asked = text_of(node, strategy, repeat, size)
    target, kept = folder / "curve.json", folder / "search.toml"
    if kept.exists() and kept.read_text(encoding="utf-8") != asked:
        raise SystemExit(f"{folder} holds another search; move it away, or go on with the version that made it")
    if target.exists():
        found: Curve = json.loads(target.read_text(encoding="utf-8"))
        return found
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(kept, asked.encode())
    file = read_search(kept)
    builder = SearchBuilder(file, completed(file, base_experiment(file, kept)))
    points = list(searched(builder, folder))
    fresh = seeds(repeat, size.seeds, f"curves {node}")
    best = {name: job for _, _, name, job in points}
    jobs = [dataclasses.replace(job, key=f"{name}/{seed}", seed=seed) for seed in fresh for name, job in best.items()]
    accuracies: dict[str, list[float]] = {name: [] for name in best}
    for job, outcome in zip(jobs, builder.trainer().train(jobs), strict=True):
        accuracies[job.key.split("/")[0]].append(outcome.accuracy)
    curve: Curve = [
        {"evaluations": count, "passes": passes, "genome": name, "accuracy": statistics.mean(accuracies[name])}
        for count, passes, name, _ in points
    ]
    write_atomic(target, json.dumps(curve).encode())
    return curve


def at(curve: Curve, evaluations: int) -> float:
    """The accuracy of the best that `evaluations` have found; of the first generation before it is over."""
    reached = [point for point in curve if point["evaluations"] <= evaluations]
    return float((reached[-1] if reached else curve[0])["accuracy"])


def rows_of(curves: Mapping[str, Mapping[int, Curve]], size: Size) -> list[dict[str, Any]]:
    """The figures of every strategy of a node; p values over the repeats that both have."""
    steps = [size.population * number for number in range(1, size.generations + 1)]
    ends = {name: {repeat: at(curve, steps[-1]) for repeat, curve in found.items()} for name, found in curves.items()}
    means = {
        name: {repeat: statistics.mean(at(curve, step) for step in steps) for repeat, curve in found.items()}
        for name, found in curves.items()
    }
    rows = []
    for name, found in ends.items():
        values = list(found.values())
        row: dict[str, Any] = {
            "strategy": name, "repeats": len(values), "mean": statistics.mean(values), "worst": min(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "over the search": statistics.mean(means[name].values()),
            "passes": statistics.mean(curve[-1]["passes"] for curve in curves[name].values()),
        }  # fmt: skip
        for label, of in (("end", ends), ("search", means)):
            shared = sorted(set(of[name]) & set(of.get("genetic", {})))
            mine, theirs = ([of[one][repeat] for repeat in shared] for one in ("genetic", name)) if shared else ([], [])
            differs = name != "genetic" and len(shared) > 1 and mine != theirs
            row[f"U {label}"] = float(mannwhitneyu(mine, theirs).pvalue) if differs else None
            row[f"W {label}"] = float(wilcoxon(mine, theirs).pvalue) if differs else None
        rows.append(row)
    return rows


def table_of(rows: Sequence[Mapping[str, Any]], node: str) -> str:
    """The figures as a table."""
    head = (
        "strategy", "repeats", "held accuracy", "std", "worst", "over the search", "passes", "p (U)", "p (W)",
        "p over the search (U)", "p over the search (W)",
    )  # fmt: skip
    lines = [f"## {node}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [
            row["strategy"], str(row["repeats"]), f"{row['mean']:.4f}", _shown(row["std"]), f"{row['worst']:.4f}",
            f"{row['over the search']:.4f}", f"{row['passes']:,.0f}",
            *(_shown(row[key]) for key in ("U end", "W end", "U search", "W search")),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"


def figure(curves: Mapping[str, Mapping[str, Mapping[int, Curve]]], against: str) -> Figure:
    """The mean of the best so far at each generation, with its standard error, a panel for each node.

    Args:
        curves: of every node and strategy.
        against: "evaluations" or "passes".
    """
    lines = {
        (node, name): [*zip(*(_mean_point(points, against) for points in zip(*found.values(), strict=False)), strict=True)]
        for node, strategies in curves.items()
        for name, found in strategies.items()
    }

    unit, label = {"evaluations": (1, "trainings"), "passes": (1_000_000, "device passes, millions")}[against]

    def draw(sheet: Sheet) -> None:
        panels = sheet.figure.subplots(len(curves), 1, squeeze=False, sharex=True)[:, 0]
        for axes, node in zip(panels, curves, strict=True):
            for number, name in enumerate(STRATEGIES):
                if (node, name) in lines:
                    x, mean, error = lines[node, name]
                    x = [value / unit for value in x]
                    sheet.line(axes, x, mean, number, name)
                    low, high = ([m + sign * e for m, e in zip(mean, error, strict=True)] for sign in (-1, 1))
                    axes.fill_between(x, low, high, color=sheet.series(number), alpha=0.15, lw=0)
            axes.set_ylabel(f"held accuracy\n{node}")
        panels[-1].set_xlabel(label)
        sheet.legend(panels[0])

    columns = {
        f"{node}, {name}, {column}": list(values)
        for (node, name), line in lines.items()
        for column, values in zip((against, "held accuracy", "standard error"), line, strict=True)
    }
    told = f"Held accuracy of the best genome so far against {against}, mean of all repeats, for each strategy and node"
    return Figure(f"search-{against}", "Best so far", told, draw, columns, height_in=2.0 * len(curves) + 0.4)


def _mean_point(points: Sequence[Mapping[str, Any]], against: str) -> tuple[float, float, float]:
    """Mean abscissa, mean accuracy and its standard error, of the same generation of every repeat."""
    accuracies = [point["accuracy"] for point in points]
    error = statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else 0.0
    return statistics.mean(point[against] for point in points), statistics.mean(accuracies), error


def written(curves: Mapping[str, Mapping[str, Mapping[int, Curve]]], size: Size, folder: Path) -> str:
    """Write what is known so far, and return the table."""
    rows = {node: rows_of(found, size) for node, found in curves.items() if found}
    text = "\n".join(table_of(found, node) for node, found in rows.items())
    write_atomic(folder / "table.md", text.encode())
    write_atomic(folder / "table.json", json.dumps(rows).encode())
    write_atomic(folder / "curves.json", json.dumps(curves).encode())
    known = {node: found for node, found in curves.items() if found}
    save([figure(known, against) for against in ("evaluations", "passes")] if known else [], folder / "table.md")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="tiny searches of two repeats that show that everything works")
    parser.add_argument("--nodes", nargs="+", choices=list(NODES), default=list(NODES))
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--hours", type=float, help="begin no search later than this")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    size, repeats = (QUICK, 2) if chosen.quick else (Size(), chosen.repeats)
    folder = FOLDER / ("quick" if chosen.quick else "full")
    curves: dict[str, dict[str, dict[int, Curve]]] = {node: {} for node in chosen.nodes}
    tasks = [(node, name, k) for k in range(repeats) for node in chosen.nodes for name in chosen.strategies]
    begin, made_s = time.monotonic(), dict[str, list[float]]()
    left = [task for task in tasks if not (folder / f"{task[0]}-{task[1]}-{task[2]}" / "curve.json").exists()]
    print(f"{len(tasks) - len(left)} of {len(tasks)} searches are done", flush=True)
    for node, name, repeat in tasks:
        if chosen.hours is not None and time.monotonic() - begin > 3600 * chosen.hours:
            break
        started, due = time.monotonic(), (node, name, repeat) in left
        curve = curve_of(node, name, repeat, size, folder / f"{node}-{name}-{repeat}")
        curves[node].setdefault(name, {})[repeat] = curve
        if due:
            left.remove((node, name, repeat))
            made_s.setdefault(node, []).append(time.monotonic() - started)
            known = [second for found in made_s.values() for second in found]
            rest_s = sum(statistics.mean(made_s.get(one, known)) for one, _, _ in left)
            print(
                f"{node} {name} {repeat}: held {curve[-1]['accuracy']:.4f} after {curve[-1]['evaluations']} trainings, "
                f"{made_s[node][-1]:.0f} s; left {len(left)} searches, about {rest_s / 3600:.1f} h",
                flush=True,
            )
            written(curves, size, folder)
    print(written(curves, size, folder))
    if left:
        print(f"left: {len(left)} searches; the same command goes on")
    print(json.dumps({"done": len(tasks) - len(left), "left": len(left), "folder": str(folder)}))


if __name__ == "__main__":
    main()
