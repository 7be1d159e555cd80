"""Validity of a calibration: every difference between the bench then and now, each with both values.

age        now - taken_at > max_age, or taken in the future
settings   a key of the bench file that changes what is measured has another value, or is new, or gone
serials    another box answers under the name of an instrument
firmware   the same box answers with other firmware: said, and no reason to refuse
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from calibration.certificate import Certificate, Instrument

Kind = Literal["age", "setting", "serial", "firmware"]
SKEW_S = 120.0  # clocks of two computers may differ by so much


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between the bench now and when the calibration was taken.

    Args:
        what: "awg high_v".
        then: when it was calibrated.
    """

    kind: Kind
    what: str
    then: str
    now: str

    @property
    def refuses(self) -> bool:
        """True if the calibration must not be used; other firmware is only told."""
        return self.kind != "firmware"

    def __str__(self) -> str:
        return f"{self.what}: {self.now} now, {self.then} when calibrated"


def age_s(certificate: Certificate, now: datetime) -> float:
    """Return the seconds since it was taken; below 0: its clock was ahead of ours."""
    return (now - certificate.taken).total_seconds()


def aged(certificate: Certificate, now: datetime, most_s: float) -> Iterator[Difference]:
    """Yield the difference of age, if there is one."""
    old = age_s(certificate, now)
    if old > most_s:
        yield Difference("age", "age", f"at most {span(most_s)} allowed", f"{span(old)} old")
    elif old < -SKEW_S:
        yield Difference("age", "time", certificate.taken_at, f"{now.isoformat(timespec='seconds')}, which is earlier")


def settings_differ(certificate: Certificate, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Difference]:
    """Yield a difference for each key, in the order of the file as it is now."""
    then = certificate.settings
    for table in dict.fromkeys([*settings, *then]):
        before, after = then.get(table, {}), settings.get(table, {})
        for key in dict.fromkeys([*after, *before]):
            if _as_read(before.get(key)) != _as_read(after.get(key)):
                shown = ["not given" if key not in part else f"{_as_read(part[key])}" for part in (before, after)]
                yield Difference("setting", f"[{table}] {key}", *shown)


def _as_read(value: Any) -> Any:
    """Return `value` as a file gives it back: limits of each channel are a tuple in Python, a list in TOML."""
    return [_as_read(one) for one in value] if isinstance(value, list | tuple) else value


def instruments_differ(certificate: Certificate, answered: Mapping[str, Instrument]) -> Iterator[Difference]:
    """Yield the differences of instruments: other boxes first under each name, then other firmware."""
    then = certificate.instruments
    for name in dict.fromkeys([*answered, *then]):
        before, after = then.get(name), answered.get(name)
        if before is None or after is None:
            yield Difference("serial", name, *("absent" if who is None else str(who) for who in (before, after)))
        elif (before.maker, before.model, before.serial) != (after.maker, after.model, after.serial):
            yield Difference("serial", name, *(f"{who.maker} {who.model} SN {who.serial}" for who in (before, after)))
        elif before.firmware != after.firmware:
            yield Difference("firmware", f"{name} firmware", before.firmware, after.firmware)


def span(seconds: float) -> str:
    """Write a duration as a person says it: "90 s", "25 min", "26 h", "12 days"."""
    for least, size, unit in ((4 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "h"), (120.0, 60.0, "min")):
        if seconds >= least:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
