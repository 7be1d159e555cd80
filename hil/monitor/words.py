"""How the pages write states, values, times and names."""

from __future__ import annotations

import time

from hil.metric import named
from hil.plain import plain
from hil.report.headline import duration, score
from hil.run.index import Entry

NONE = "–"
TONES = {  # state of an entry -> how it is coloured
    "at work": "working", "paused": "waiting", "interrupted": "waiting", "done": "done", "good": "done", "fault": "bad",
    "unsafe": "bad", "unreadable": "bad", "dead": "bad", "bad": "bad",
}  # fmt: skip
OUTPUTS = (("on", "on"), ("off", "off"), ("safe", "off"), ("none", "none"))  # what is said of outputs -> word


def tone(state: str) -> str:
    """Return the class of the colour of a state."""
    return TONES.get(state, "quiet")


def value(entry: Entry) -> str:
    """Return the value of the metric; a share in per cent."""
    return NONE if entry.value is None else score(named(entry.metric, entry.lower), entry.value)


def title(entry: Entry) -> str:
    """Return the name of the metric for people."""
    return named(entry.metric, entry.lower).title


def moment(seconds: float | None) -> str:
    """Return local date and time of `seconds` since 1970."""
    return NONE if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def lasting(seconds: float | None) -> str:
    """Return a duration, or a dash."""
    return NONE if seconds is None else duration(seconds)


def left(seconds: float) -> str:
    """Return the time that something will still take, no finer than it is known, in one piece."""
    whole = round(seconds)
    return (f"{whole / 60:.0f} min" if 120 <= whole < 7200 else duration(whole)).replace(" ", "\u00a0")


def count(number: float | None, total: float | None = None) -> str:
    """Return a count, "of" its total where that is known."""
    shown = NONE if number is None else f"{number:,.0f}"
    return shown if total is None else f"{shown} of {total:,.0f}"


def short(text: str, most: int = 200) -> str:
    """Return a text from a run folder in one line, plain, and not longer than `most` letters."""
    line = " ".join(plain(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def state(entry: Entry) -> str:
    """Return the state in a word or two."""
    return short(entry.state, 30)


def outputs(entry: Entry) -> str:
    """Return "on", "off", "none" or "unknown", in a word."""
    said = entry.outputs.split(",")[0].split()
    if not said:
        return "none"
    return dict(OUTPUTS).get(said[0].rstrip(";:"), "unknown")


def provenance(entry: Entry) -> str:
    """Return who answered: real, twin, replay or unknown; "" where nothing is recorded yet."""
    return entry.provenance if entry.provenance in ("real", "twin", "replay", "") else "unknown"


def progress(entry: Entry) -> str:
    """Return the epoch and the time left of a run that is at work; "" of any other."""
    if entry.state not in ("at work", "paused", "interrupted"):
        return ""
    if entry.kind == "comparison":
        return f"{count(entry.step, entry.steps)} runs"
    if entry.epoch is None:
        return ""
    rest = "" if entry.left_s is None else f", {left(entry.left_s)}\u00a0left"
    return f"{'generation' if entry.kind == 'search' else 'epoch'} {count(entry.epoch, entry.epochs)}{rest}"
