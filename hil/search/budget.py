"""Budget of device passes of a bench: granted one shot after the other, never more than the budget.

    bench_passes.jsonl      ["key of the job", passes] a shot, appended before the shot is sent; ["key", 0] begins a candidate

Whatever was granted stays spent, also of a candidate that was interrupted or killed and is trained anew. A shot that the
recovery ladder repeats by itself is granted once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hil.errors import BudgetSpent, RunError
from hil.files import append, loads, read_bytes, there, write_atomic
from hil.search.evaluator import Chunk, Evaluator
from hil.search.jobs import Outcome

FILE = "bench_passes.jsonl"


class Ledger:
    """The device passes that the search has spent, on disk.

    Args:
        folder: of the search.
        budget: device passes, or None for no limit.

    Raises:
        RunError: the ledger of an earlier part of the search is damaged.
    """

    def __init__(self, folder: Path, budget: int | None = None) -> None:
        self._path, self.budget = folder / FILE, budget
        self._costs: dict[str, int] = {}  # by candidate, of its last beginning
        self.spent, self._key = 0, ""
        if there(self._path):
            self._read()

    def __str__(self) -> str:
        return f"{self.spent:,}" if self.budget is None else f"{self.spent:,} of {self.budget:,}"

    def begin(self, key: str) -> None:
        """Charge what is granted from now on to this candidate. Raises: RunError: the ledger cannot be written."""
        self._enter(key, 0)

    def grant(self, passes: int) -> None:
        """Grant one shot.

        Raises:
            BudgetSpent: there are not so many left. RunError: the ledger cannot be written.
        """
        if self.budget is not None and self.spent + passes > self.budget:
            raise BudgetSpent(
                "the budget of device passes is spent", where="budget_passes", got=f"{passes:,} more asked for",
                allowed=f"{self.budget - self.spent:,} of {self.budget:,} are left", outputs="unchanged; nothing was sent",
                todo="raise budget_passes in the search.toml of the run and hil resume it, or be content",
            )  # fmt: skip
        self._enter(self._key, passes)

    def short(self) -> str:
        """Say why no other candidate should begin: less is left than the dearest took. Else, or if none was trained, ""."""
        dearest = max(self._costs.values(), default=0)
        if self.budget is None or (self.spent < self.budget and self.spent + dearest <= self.budget):
            return ""
        return f"{self} device passes, and a candidate takes {dearest:,}"

    def _enter(self, key: str, passes: int) -> None:
        try:
            append(self._path, (json.dumps([key, passes]) + "\n").encode())
        except OSError as error:
            raise RunError(
                f"the ledger of the bench cannot be written: {error.strerror}", where=str(self._path),
                outputs="unchanged; nothing was sent", todo="free space, then hil resume",
            ) from error  # fmt: skip
        self._count(key, passes)

    def _count(self, key: str, passes: int) -> None:
        self._key = key
        self._costs[key] = self._costs.get(key, 0) + passes if passes else 0
        self.spent += passes

    def _read(self) -> None:
        text = read_bytes(self._path).decode("utf-8", "replace")
        whole, _, torn = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                key, passes = loads(line, str(self._path))
                if not isinstance(key, str) or not isinstance(passes, int) or isinstance(passes, bool) or passes < 0:
                    raise ValueError("not a key and a number of passes")
            except (RunError, ValueError, TypeError) as error:
                raise RunError(
                    "the ledger of the bench is damaged", where=f"{self._path} line {number}", got=line[:80],
                    allowed='["key", passes]', outputs="untouched; nothing was opened",
                    todo="correct that line: what it holds is not known to be spent",
                ) from error  # fmt: skip
            self._count(key, passes)
        if torn:  # its shot was not sent before the line was whole
            write_atomic(self._path, (whole + "\n" if whole else "").encode())


@dataclass(frozen=True)
class Budget:
    """Limits of what the bench may spend.

    Args:
        ledger: device passes, never more.
        hours: after which no candidate begins; None: no limit.
    """

    ledger: Ledger
    hours: float | None = None

    def spent(self, outcomes: Sequence[Outcome]) -> str:
        """Say why no other candidate may begin, or ""."""
        hours = sum(found.wall_s for found in outcomes) / 3600
        if self.hours is not None and hours >= self.hours:
            return f"{hours:.2f} of {self.hours:g} h"
        return self.ledger.short()


class Bounded:
    """An Evaluator that begins no chunk beyond a budget.

    Args:
        inner: has them trained, asking the ledger of the budget for every shot.
        budget: of the bench.
        done: the outcomes that count for its hours.
    """

    def __init__(self, inner: Evaluator, budget: Budget, done: Callable[[], Sequence[Outcome]]) -> None:
        self._inner, self._budget, self._done = inner, budget, done

    def evaluate(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Outcome]]]:
        """Train the chunks, one after another. Raises: BudgetSpent: another may not begin, or was broken off."""
        for chunk in chunks:
            why = self._budget.spent(self._done())
            if why:
                raise _spent(f"the budget is spent: {why}")
            self._budget.ledger.begin(chunk[0].key)
            try:
                yield from self._inner.evaluate([chunk])
            except BudgetSpent as error:
                raise _spent(
                    f"the budget is spent: {self._budget.ledger} device passes, the last candidate broken off"
                ) from error

    def close(self) -> None:
        """Close what trains them."""
        self._inner.close()


def _spent(what: str) -> BudgetSpent:
    return BudgetSpent(
        what, where="the search", allowed="budget_passes and budget_h of its file", outputs="as after the last candidate: off",
        todo="raise the budget in the search.toml of the run and hil resume it, or be content",
    )  # fmt: skip
