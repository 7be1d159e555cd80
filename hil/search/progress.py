"""Display of a search while it runs: a bar for the jobs of the stage, and a line for every generation.

Without a terminal only the lines are printed.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from hil.search.loop import Generation, Notice, Point
from hil.search.loop import Progress as Jobs


class SearchDisplay:
    """A context; call it with every point."""

    def __init__(self, console: Console) -> None:
        self._console, self._fresh_s, self._fresh = console, 0.0, 0
        self._bar = Progress(
            TextColumn("{task.fields[task_name]}"), BarColumn(bar_width=28), TextColumn("{task.fields[text]}"),
            console=console, transient=True, refresh_per_second=4,
        )  # fmt: skip
        self._row = self._bar.add_task("", total=1, task_name="", text="")

    def __enter__(self) -> SearchDisplay:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, point: Point) -> None:
        """Show a point: move the bar, or print the line."""
        if isinstance(point, Jobs):
            self._bar.update(
                self._row, completed=point.done, total=point.total, task_name=point.task, text=f"{point.done}/{point.total}"
            )
        elif isinstance(point, Notice):
            self._console.print(point.line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._generation(point)

    def _generation(self, point: Generation) -> None:
        if point.fresh:
            self._fresh_s, self._fresh = self._fresh_s + point.wall_s, self._fresh + 1
        rate = point.evaluations / point.wall_s if point.wall_s else 0.0
        left = self._fresh_s / self._fresh * (point.of - point.number) if self._fresh else None
        self._console.print(
            f" generation {point.number:>3}/{point.of}  best {_shown(point.best)}   median {_shown(point.median)}   "
            f"diversity {point.diversity:.2f}   diverged {point.died}   {rate:.1f} evaluations/s   "
            + (f"left {_clock(left)}" if left is not None else "from the record"),
            highlight=False,
            soft_wrap=True,
        )


def _shown(value: float) -> str:
    """A fitness as people read it; a cost is negative in a fitness."""
    return f"{value:.2%}" if value >= 0 else f"{-value:.4f}" if value > -100 else f"{-value:,.0f}"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S" if seconds >= 3600 else "%M:%S", time.gmtime(seconds))
