"""The figures of a search: fitness, trials, settings, front, hypervolume, functions, importance, likeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from hil.report.figure import DASHES, Columns, Figure, Sheet, heading, slug
from hil.report.figures import counted, scaled, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[str, Sequence[float]]
COUNTS = 1e4  # from here on ticks are written as 20 k


def generations(
    best: Sequence[float],
    middle: Sequence[float],
    evaluated: Sequence[Sequence[float]],
    name: str,
    unit: str,
    lower: bool = False,
) -> Figure:
    """Best and median fitness over the generations, and every genome as a dot; `lower`: less is better."""
    numbers = range(1, len(best) + 1)
    dots = [(number, value) for number, values in zip(numbers, evaluated, strict=True) for value in values]

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _dots(sheet, axes, dots, "genome")
        sheet.line(axes, numbers, best, 0, "best")
        sheet.line(axes, numbers, middle, 1, "median")
        low, high = min([*middle, *best]), max([*middle, *best] if lower else best)
        below, above = (0.08, 0.6) if lower else (0.6, 0.08)  # a few far off on the worse side would hide the rest
        axes.set_ylim(low - below * (high - low) - 1e-9, high + above * (high - low) + 1e-9)
        whole_numbers(axes, "generation")
        axes.set_ylabel(heading(name, unit))
        sheet.legend(axes)

    told = f"Fitness over {len(best)} generations: best ends at {best[-1]:.4g}, median at {middle[-1]:.4g}."
    columns = {
        "generation": numbers, heading(f"best {name}", unit): best, heading(f"median {name}", unit): middle,
        "generation of the genome": [at for at, _ in dots], heading(f"{name} of the genome", unit): [v for _, v in dots],
    }  # fmt: skip
    return Figure("generations", "Fitness over generations", told, draw, columns)


def trials(scores: Sequence[float], name: str, unit: str, lower: bool = False) -> Figure:
    """Every trial as a dot, and the best so far; `lower`: less is better."""
    numbers, best = range(1, len(scores) + 1), list(accumulate(scores, min if lower else max))

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _dots(sheet, axes, list(zip(numbers, scores, strict=True)), "trial")
        axes.step(numbers, best, where="post", color=sheet.series(0), lw=sheet.pt(1.8), label="best so far")
        whole_numbers(axes, "trial")
        axes.set_ylabel(heading(name, unit))
        sheet.legend(axes)

    told = f"Best {name} so far over {len(scores)} trials: begins at {best[0]:.4g}, ends at {best[-1]:.4g}."
    columns = {"trial": numbers, heading(name, unit): scores, heading(f"best {name} so far", unit): best}
    return Figure("trials", "Best so far", told, draw, columns)


def setting(
    number: int, key: str, unit: str, values: Sequence[float | str], scores: Sequence[float], named: tuple[str, str], best: int,
    logarithmic: bool = False,
) -> Figure:  # fmt: skip
    """The score of every trial over one of its settings.

    Args:
        number: of the setting, from 1.
        key: of the setting.
        unit: of its values.
        values: one a trial; texts are choices.
        scores: one a trial.
        named: name and unit of the score.
        best: the place of the best trial.
        logarithmic: equal ratios are equally long.
    """
    choices = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    at = [choices.index(value) if isinstance(value, str) else float(value) for value in values]

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _dots(sheet, axes, list(zip(at, scores, strict=True)), "trial")
        axes.plot([at[best]], [scores[best]], "D", color=sheet.series(0), label="best", **sheet.dot(6))
        if logarithmic:
            axes.set_xscale("log")
        if choices:
            axes.set_xticks(range(len(choices)), [_shortened(choice) for choice in choices])
            axes.set_xlim(-0.5, len(choices) - 0.5)
        axes.set_xlabel(heading(key, unit))
        axes.set_ylabel(heading(*named))
        sheet.legend(axes)

    told = f"{named[0]} over {key}, {len(scores)} trials: best at {values[best] if choices else f'{at[best]:.4g} {unit}'}."
    columns = {heading(key, unit): list(values), heading(*named): scores}
    return Figure(f"setting-{number}-{slug(key)}", key, told, draw, columns)


def covered(evaluations: Sequence[int], shares: Sequence[float], names: tuple[str, str]) -> Figure:
    """Hypervolume of all genomes so far, as a share of the box between the worst and the best of both objectives."""
    percents = [100 * share for share in shares]

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        sheet.line(axes, evaluations, percents, 0, "")
        axes.set_ylim(0, 105)
        axes.set_xlabel("trainings")
        axes.set_ylabel("hypervolume (%)")

    told = f"Hypervolume of {names[0]} and {names[1]} over {evaluations[-1]} trainings, ends at {percents[-1]:.0f} %."
    columns: Columns = {"trainings": evaluations, "hypervolume, share of the box between worst and best (%)": percents}
    return Figure("hypervolume", "Hypervolume", told, draw, columns, aside=f"of {names[0]} and {names[1]}")


def front(points: Sequence[tuple[float, float]], chosen: Sequence[tuple[float, float]], names: tuple[str, str]) -> Figure:
    """Two objectives of every genome; those that nobody dominates joined by a line."""
    line = sorted(chosen)

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _dots(sheet, axes, points, "evaluated")
        sheet.line(axes, [p[0] for p in line], [p[1] for p in line], 0, "front")
        if max(value for _, value in points) >= COUNTS:
            axes.yaxis.set_major_formatter(lambda value, _: counted(value))
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        sheet.legend(axes)

    told = f"{names[1]} over {names[0]}: {len(chosen)} of {len(points)} genomes are on the front."
    columns = {
        names[0]: [p[0] for p in points], names[1]: [p[1] for p in points],
        f"{names[0]}, on the front": [p[0] for p in line], f"{names[1]}, on the front": [p[1] for p in line],
    }  # fmt: skip
    return Figure("front", "Pareto front", told, draw, columns, aside="the line joins those that no other one beats in both")


def functions(
    grid: Sequence[float], slope: Sequence[float], found: Sequence[Curve], edges: Sequence[float], shares: Sequence[float]
) -> Figure:
    """The best functions g over the true derivative, each relative to its largest; below, the pre-activations visited."""
    curves = [(name, scaled(values)) for name, values in found]
    visited = [100 * share for share in shares]

    def draw(sheet: Sheet) -> None:
        upper, lower = sheet.figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.axhline(0, color=sheet.look.muted, lw=sheet.pt(0.7))
        if slope:
            upper.plot(grid, scaled(slope), color=sheet.look.ink, lw=sheet.pt(2.6), alpha=0.55, label="true derivative")
        for number, (name, values) in enumerate(curves):
            dash = DASHES[number % len(DASHES)]
            upper.plot(grid, values, color=sheet.series(number), lw=sheet.pt(1.6), ls=dash, label=name)
        upper.set_ylabel("relative to largest")
        sheet.legend(upper, 3)
        if edges:
            lower.stairs(visited, edges, fill=True, color=sheet.series(2), alpha=0.3, lw=0)
        lower.set_ylim(bottom=0)
        lower.set_ylabel("visits (%)")
        lower.set_xlabel("pre-activation")
        sheet.figure.align_ylabels((upper, lower))

    told = f"The {len(found)} best functions g over the true derivative and the pre-activations visited."
    columns = {"pre-activation": grid, **({"true derivative, relative to largest": scaled(slope)} if slope else {})}
    columns |= {f"{name}, relative to largest": values for name, values in curves}
    if edges:
        columns |= {"bin from": edges[:-1], "bin to": edges[1:], "share of visits (%)": visited}
    return Figure("functions", "The best g over the true derivative, first layer", told, draw, columns, 3.9)


def bars(values: Mapping[str, float], count: int, chance: float, noun: str = "gene") -> Figure:
    """Importance of the genes, the largest on top, and what a gene that does not matter reaches by chance.

    Args:
        values: share of the variance of the fitness, by gene.
        count: of genomes.
        chance: two standard deviations of the importance of a gene that does not matter.
        noun: what they are called: "gene" or "setting".
    """
    shown = list(values.items())[:14][::-1]

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        axes.barh([name for name, _ in shown], [100 * value for _, value in shown], color=sheet.series(0), height=0.62)
        axes.axvline(100 * chance, color=sheet.look.ink, lw=sheet.pt(1.1), ls=(0, (4, 3)), label="reached by chance")
        axes.set_xlabel("variance of the fitness explained (%)")
        sheet.legend(axes)
        axes.grid(axis="y", visible=False)

    best = shown[-1] if shown else ("none", 0.0)
    told = f"Importance of {noun}s: {best[0]} explains {best[1]:.0%} of the variance of the fitness."
    columns: Columns = {
        noun: list(values),
        "variance of the fitness explained (%)": [100 * value for value in values.values()],
    }
    return Figure(
        "importance", f"Which {noun}s mattered", told, draw, columns, 1.1 + 0.24 * len(shown), f"each alone, {count} genomes"
    )


def likeness(points: Sequence[tuple[float, float]], name: str) -> Figure:
    """Fitness over how alike g and the true derivative are."""
    alike = [(abs(correlation), value) for correlation, value in points]

    def draw(sheet: Sheet) -> None:
        axes = sheet.axes()
        _dots(sheet, axes, alike, "")
        worth = sorted(value for _, value in alike)
        low, high = worth[len(worth) // 20], worth[-1]
        axes.set_ylim(low - 0.5 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)  # a few far below would hide the rest
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("|correlation of g and the true derivative|")
        axes.set_ylabel(name)

    told = f"{name} over the correlation of g and the true derivative, {len(points)} genomes."
    columns = {"|correlation of g and the true derivative|": [p[0] for p in alike], name: [p[1] for p in alike]}
    return Figure("likeness", "Likeness to the derivative", told, draw, columns)


def _dots(sheet: Sheet, axes: Axes, points: Sequence[tuple[float, float]], label: str) -> None:
    """Draw every genome as a dot; where many lie, they show darker."""
    axes.plot(
        [p[0] for p in points], [p[1] for p in points], "o", ms=sheet.pt(4), color=sheet.look.muted, alpha=0.55, mew=0,
        label=label or None,
    )  # fmt: skip


def _shortened(choice: str, most: int = 18) -> str:
    """A choice as a label of an axis."""
    return choice if len(choice) <= most else choice[: most - 1] + "…"
