"""What a tired physicist sees while it trains: one bar an epoch, and the numbers that tell whether to go on watching.

In a notebook the bar is a line of text in the output of the cell, which is changed in place. Without a terminal (a log file, a
test) one line an epoch is printed instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hil.training.loop import Epoch, TrainingStep
from hil.training.state import Training

WIDE = 120  # columns that have room for everything
AROUND = 12  # columns of the bar's line for the time left, and the blanks between its parts
Fact = tuple[int, str]
"""How soon it is left out, 0: never; and its text."""


def fitting(facts: Sequence[Fact], between: str, width: int) -> str:
    """Join facts so that they fit into `width` columns; those with the highest number are left out first, the last before.

    >>> fitting([(1, "device 80%"), (0, "loss 0.3"), (2, "faults 0")], " · ", 22)
    'device 80% · loss 0.3'
    """
    kept = list(facts)
    while len(between.join(text for _, text in kept)) > width and any(soon for soon, _ in kept):
        first = max(soon for soon, _ in kept)
        kept.remove(next(fact for fact in reversed(kept) if fact[0] == first))
    return between.join(text for _, text in kept)


class TrainingDisplay:
    """A context; call it with every point of the loop.

    Args:
        training: read for totals, device time and counters.
        console: where to print.
    """

    def __init__(self, training: Training, console: Console) -> None:
        self._training, self._console = training, console
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=28 if console.width >= WIDE else 12),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(
            "", total=training.batches_per_epoch, completed=training.batch,
            epoch=training.epoch + 1, epochs=training.plan.epochs, text="",
        )  # fmt: skip
        self._mark, self._device_s, self._seen, self._loss = time.perf_counter(), training.device_s, 0, 0.0
        self._shown = 0.0
        self._cell: Any = None  # of a notebook: a handle on one line of its output
        self._beyond = {"refuse": "refused", "clip": "clipped", "fold": "folded"}[training.policy]
        self._over = 0.0
        self._metric = training.task.metric

    def __enter__(self) -> TrainingDisplay:
        if self._console.is_jupyter:
            from IPython.display import display

            self._cell = display({"text/plain": ""}, raw=True, display_id=True)
        elif self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if self._cell is not None:
            self._cell.update({"text/plain": ""}, raw=True)

    def __call__(self, point: TrainingStep | Epoch) -> None:
        """Show a step or an epoch."""
        if isinstance(point, Epoch):
            self._epoch_done(point)
            return
        self._seen += point.examples
        self._loss += 0.05 * (point.metrics["loss"] - self._loss) if self._loss else point.metrics["loss"]
        self._over = point.metrics.get("overflow", 0.0)
        now = time.perf_counter()
        live = self._console.is_terminal or self._cell is not None
        if live and now - self._shown > 0.1:
            self._shown = now
            done, text = self._training.batch, self._text(now - self._mark, self._loss, self._over, self._seen)
            self._bar.update(self._task, completed=done, epoch=point.epoch, text=text)
            if self._cell is not None:
                share = done / self._training.batches_per_epoch
                bar = f"{'━' * round(28 * share):<28}"
                line = f"epoch {point.epoch}/{self._training.plan.epochs} {bar} {text}"
                self._cell.update({"text/plain": line}, raw=True)

    def _text(self, wall_s: float, loss: float, overflow: float, seen: int) -> str:
        busy = (self._training.device_s - self._device_s) / wall_s if wall_s else 0.0
        best = self._training.best
        held = "-" if best.score is None else f"{self._metric.said(best.score)} (epoch {best.epoch})"
        facts = [
            (3, f"{seen / wall_s:,.0f} samples/s"), (2, f"device {busy:.0%}"), (0, f"loss {loss:.3f}"),
            (1, f"validation {held}"), self._counted(overflow), self._faults(),
        ]  # fmt: skip
        taken = len(f"epoch {self._training.plan.epochs}/{self._training.plan.epochs}") + AROUND
        return fitting(facts, " · ", self._console.width - taken - (28 if self._console.width >= WIDE else 12))

    def _counted(self, overflow: float) -> Fact:
        return 0 if overflow >= 0.0005 else 4, f"{self._beyond} {overflow:.1%}"

    def _faults(self) -> Fact:
        faults = self._training.faults_recovered
        return 0 if faults else 4, f"faults {faults}"

    def _trained(self, point: Epoch) -> str:
        """The score on the training examples, of learners that say it."""
        if self._metric.name in point.train:
            return f"train {self._metric.shown(point.train[self._metric.name])}"
        return ""

    def _epoch_done(self, point: Epoch) -> None:
        device = point.device_s / point.wall_s if point.wall_s else 0.0
        trained = self._trained(point)
        facts = [
            (2, f"{point.samples_per_s:>7,.0f} samples/s"),
            (2, f"device {device:>4.0%}"),
            (0, f"loss {point.train['loss']:.3f}"),
            *([(3, trained)] if trained else []),
            (0, f"validation {self._metric.said(point.validation[self._metric.name])}{' *' if point.best else '  '}"),
            self._counted(point.train.get("overflow", 0.0)), self._faults(),
        ]  # fmt: skip
        begin = f" epoch {point.epoch:>2}/{self._training.plan.epochs}  "
        line = begin + fitting(facts, "   ", self._console.width - len(begin))
        self._console.print(line, highlight=False, soft_wrap=True)
        self._mark, self._device_s, self._seen = time.perf_counter(), self._training.device_s, 0
        self._bar.update(self._task, completed=0, epoch=min(point.epoch + 1, self._training.plan.epochs))


def telling(kind: str, facts: Mapping[str, object]) -> Iterator[str]:
    """A fault, or a recovery from one, as lines for people."""
    if kind == "recovering":
        got = f" ({facts['got']})" if facts["got"] else ""
        yield f" ! {facts['where']}: {facts['what']}{got}"
    elif kind == "recovery":
        tried, found = _words(facts["tried"]), _words(facts["found"])
        yield f"   {' · '.join([*tried, *found, 'shot repeated'])} in {facts['seconds']} s   [{facts['n']} recovered]"
    elif kind == "sentinel" and "message" in facts:
        yield f" ~ {facts['message']}"
    elif kind == "retransmission":
        yield f" ! {facts['frames']} lost or damaged frames sent again"
    elif kind == "lost":
        ways = ", ".join(_words(facts["tried"]))
        yield f" ! {facts['what']}: " + (f"not recovered by {ways} in {facts['seconds']} s" if ways else "nothing helps")


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list | tuple) else [str(value)]
