"""The passport of a loop, a value: who answered, and how fast, how clean and how linear it was. As JSON; two compared.

{"format": "hil passport 1", "name", "shape", "taken_at", "provenance",
 "instruments": {NAME: {"maker", "model", "serial", "firmware"}}, "versions": {PACKAGE: TEXT},
 "figures": {NAME: {"unit", "value", "spread", "note"}},              value null: it does not apply, the note says why
 "parts": {PART: SHARE}}                                             of the time of a shot

changed      |now - before| > 3 sqrt( spread_now^2 + spread_before^2 )
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from calibration.certificate import Instrument
from calibration.step import Estimate
from hil.errors import UNTOUCHED, ConfigError, RunError
from hil.files import read_object, there, write_atomic
from hil.settings import NotNegative, arguments, check

FORMAT = "hil passport 1"
MOST_BYTES = 1 << 20  # some 5 kB are usual
TIMES = 3.0  # a change is one by more than so many times the spread of both
FACTS = ("name", "shape", "provenance")


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity, or why there is none.

    Args:
        unit: of value and spread; "1" for a plain number.
        value: None: it does not apply.
        spread: one standard deviation of the value, as its repetitions within the check show it.
        note: how it is defined; where it does not apply, why.
    """

    unit: str
    value: float | None = None
    spread: NotNegative = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        check(self, "passport")

    def __str__(self) -> str:
        return "-" if self.value is None else str(Estimate(self.value, self.spread, self.unit))

    def differs(self, other: Figure) -> bool:
        """Return whether this one is off `other` by more than TIMES the spread of both; never if neither applies."""
        if self.value is None or other.value is None:
            return (self.value is None) is not (other.value is None)
        return abs(self.value - other.value) > TIMES * math.hypot(self.spread, other.spread)


@dataclass(frozen=True, slots=True)
class Passport:
    """The findings of `hil doctor`.

    Args:
        name: of the bench, or of the class.
        shape: of the bench; "device" or "twin" for a class.
        taken_at: ISO 8601, with the offset from UTC.
        provenance: who answered: real, twin, replay, unknown.
        instruments: by name in the bench file.
        versions: of hil and of the packages beneath it.
        figures: by name.
        parts: what took the time of a shot, as shares of it.
    """

    name: str
    shape: str
    taken_at: str
    provenance: str
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def bottleneck(self) -> str:
        """The part that takes most of the time of a shot, "" if the device does not say."""
        return max(self.parts, key=lambda part: self.parts[part], default="")

    def save(self, path: Path) -> None:
        """Write the passport to a new file. Raises: RunError: there is one, or it cannot be written."""
        check_free(path)
        try:
            write_atomic(path, (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode())
        except RunError as error:
            error.allowed, error.todo = "a folder that you may write to, with free space", "name another file: --json"
            raise

    @classmethod
    def load(cls, path: Path) -> Passport:
        """Read a passport. Raises: ConfigError: no such file, damaged, or a file of something else."""
        table = read_object(path, MOST_BYTES, ConfigError)
        if table.pop("format", None) != FORMAT:
            raise ConfigError(
                "no passport of this format", where=str(path), allowed=f'"format": "{FORMAT}"', outputs=UNTOUCHED,
                todo="name a file that hil doctor --json wrote",
            )  # fmt: skip
        known = arguments(cls, table, str(path))
        rows = {name: _rows(table, name, path) for name in ("instruments", "versions", "figures", "parts")}
        known["instruments"] = {k: Instrument(**arguments(Instrument, _row(v, k, path), f"{path}: {k}")) for k, v in
                                rows["instruments"].items()}  # fmt: skip
        known["figures"] = {
            k: Figure(**arguments(Figure, _row(v, k, path), f"{path}: {k}")) for k, v in rows["figures"].items()
        }
        _check_values(rows["versions"], str, "a text", path)
        _check_values(rows["parts"], float, "a share", path)
        return cls(**known)


def check_free(path: Path) -> None:
    """Raises: RunError: something has this name."""
    if there(path):
        raise RunError(
            "nothing is overwritten", where=str(path), got="it is there already", outputs=UNTOUCHED,
            todo="name another file: --json",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A difference from the last passport.

    Args:
        name: of the figure or the fact.
        before, now: as text.
        figure: it is a figure.
    """

    name: str
    before: str
    now: str
    figure: bool


def changes(before: Passport, now: Passport) -> list[Change]:
    """Return what changed: facts at all, figures by more than their spread."""
    found = [Change(name, a, b, False) for name, a, b in _facts(before, now) if a != b]
    for name in dict.fromkeys((*before.figures, *now.figures)):
        a, b = (passport.figures.get(name, Figure("1")) for passport in (before, now))
        if a.differs(b):
            found.append(Change(name, str(a), str(b), True))
    return found


def verdict(before: Passport, now: Passport, found: list[Change]) -> str:
    """Say in a sentence what `changes` found."""
    both = [n for n in now.figures if n in before.figures and now.figures[n].value is not None]
    figures = [change.name for change in found if change.figure]
    facts = [change.name for change in found if not change.figure]
    besides = f"; not the same: {', '.join(facts)}" if facts else "; all else is the same"
    if not figures:
        return f"none of {len(both)} figures changed by more than {TIMES:g} times its spread since {before.taken_at}{besides}"
    return (
        f"{len(figures)} of {len(both)} figures changed by more than {TIMES:g} times their spread since {before.taken_at}: "
        f"{', '.join(figures)}{besides}"
    )


def _facts(before: Passport, now: Passport) -> Iterator[tuple[str, str, str]]:
    yield from ((name, getattr(before, name), getattr(now, name)) for name in FACTS)
    for table in ("instruments", "versions"):
        a, b = getattr(before, table), getattr(now, table)
        yield from ((name, str(a.get(name, "-")), str(b.get(name, "-"))) for name in dict.fromkeys((*a, *b)))


def _rows(table: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    return _row(table.get(name, {}), name, path)


def _row(value: object, name: str, path: Path) -> Mapping[str, Any]:
    """Raises: ConfigError: no table."""
    if not isinstance(value, Mapping):
        raise _damaged(f"{path}: {name}", f"a {type(value).__name__}", "a table")
    return value


def _check_values(rows: Mapping[str, Any], kind: type, allowed: str, path: Path) -> None:
    for name, value in rows.items():
        if not isinstance(value, kind) or (isinstance(value, float) and not 0 <= value <= 1):
            raise _damaged(f"{path}: {name}", str(value)[:60], allowed)


def _damaged(where: str, got: str, allowed: str) -> ConfigError:
    return ConfigError(
        "a damaged passport",
        where=where,
        got=got,
        allowed=allowed,
        outputs=UNTOUCHED,
        todo="name an intact one, or make it again",
    )
