"""The figures of a search's page, in the style of hil/report/figures.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hil.report.figures import INK, MANY, MUTED, SERIES, SURFACE, _blank, _figure, _legend, _scaled, _svg

Curve = tuple[str, Sequence[float]]


def generations(
    best: Sequence[float], middle: Sequence[float], evaluated: Sequence[Sequence[float]], name: str, unit: str
) -> str:
    """Best and median fitness over the generations, and every genome as a dot."""
    fig, axes = _figure(3.3)
    numbers = range(1, len(best) + 1)
    for number, values in zip(numbers, evaluated, strict=True):
        axes.plot([number] * len(values), values, ".", ms=4, color=MUTED, alpha=0.35, mew=0)
    axes.plot(numbers, best, color=SERIES[0], marker="o", ms=4, mec=SURFACE, mew=0.6, label="best")
    axes.plot(numbers, middle, color=SERIES[1], marker="o", ms=4, mec=SURFACE, mew=0.6, label="median")
    low = min([*middle, *best])
    axes.set_ylim(bottom=low - 0.6 * (max(best) - low) - 1e-9)
    axes.set_xlabel("generation")
    axes.set_ylabel(f"{name} ({unit})" if unit else name)
    _legend(axes)
    return _svg(
        fig, "generations", f"Fitness over {len(best)} generations: best ends at {best[-1]:.4g}, median at {middle[-1]:.4g}."
    )


def front(points: Sequence[tuple[float, float]], chosen: Sequence[tuple[float, float]], names: tuple[str, str]) -> str:
    """Two objectives of every genome; those that nobody dominates joined by a line."""
    fig, axes = _figure(3.3)
    axes.plot([p[0] for p in points], [p[1] for p in points], ".", ms=4, color=MUTED, alpha=0.5, mew=0, label="evaluated")
    line = sorted(chosen)
    axes.plot([p[0] for p in line], [p[1] for p in line], "o-", ms=5, color=SERIES[0], mec=SURFACE, mew=0.6, label="front")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    _legend(axes)
    return _svg(fig, "front", f"{names[1]} over {names[0]}: {len(chosen)} of {len(points)} genomes are on the front.")


def functions(
    grid: Sequence[float], slope: Sequence[float], found: Sequence[Curve], edges: Sequence[float], shares: Sequence[float]
) -> str:
    """The best functions g over the true derivative, each relative to its largest; below, the pre-activations visited."""
    fig = _blank(4.2)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.axhline(0, color=MUTED, lw=0.7)
    if slope:
        upper.plot(grid, _scaled(slope), color=INK, lw=2.6, alpha=0.55, label="true derivative")
    for (name, values), colour in zip(found, MANY, strict=False):
        upper.plot(grid, _scaled(values), color=colour, lw=1.6, label=name)
    upper.set_ylabel("relative to largest")
    _legend(upper, 2)
    if edges:
        lower.stairs([100 * share for share in shares], edges, fill=True, color=SERIES[2], alpha=0.3, lw=0)
    lower.set_ylim(bottom=0)
    lower.set_ylabel("visited (%)")
    lower.set_xlabel("pre-activation")
    return _svg(
        fig, "functions", f"The {len(found)} best functions g over the true derivative and the pre-activations visited."
    )


def bars(values: Mapping[str, float]) -> str:
    """Importance of the genes, the largest on top."""
    shown = list(values.items())[:14][::-1]
    fig, axes = _figure(1.1 + 0.24 * len(shown))
    axes.barh([name for name, _ in shown], [100 * value for _, value in shown], color=SERIES[0], height=0.62)
    axes.set_xlabel("variance of the fitness explained (%)")
    axes.grid(axis="y", visible=False)
    best = shown[-1] if shown else ("none", 0.0)
    return _svg(fig, "importance", f"Importance of genes: {best[0]} explains {best[1]:.0%} of the variance of the fitness.")


def likeness(points: Sequence[tuple[float, float]], name: str) -> str:
    """Fitness over how alike g and the true derivative are."""
    fig, axes = _figure(3.3)
    axes.plot([abs(p[0]) for p in points], [p[1] for p in points], ".", ms=5, color=SERIES[0], alpha=0.5, mew=0)
    worth = sorted(p[1] for p in points)
    low, high = worth[len(worth) // 20], worth[-1]
    axes.set_ylim(low - 0.5 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)  # a few far below would hide the rest
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("|correlation of g and the true derivative|")
    axes.set_ylabel(name)
    return _svg(fig, "likeness", f"{name} over the correlation of g and the true derivative, {len(points)} genomes.")
