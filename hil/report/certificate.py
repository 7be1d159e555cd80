"""One page beside a saved calibration: verdict, every step with its curves and parameters, settings, origin.

What failed comes first, with what to do about it.

Read as plain data, so that a damaged one, or one without its sweeps, still gives a page that says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from hil import toml
from hil.errors import RunError
from hil.files import read_tensors, read_text, write_atomic
from hil.report import figures
from hil.report.headline import PROVENANCE, UNKNOWN, Tile, duration, quantity
from hil.report.page import page
from hil.report.sweep_figures import Sweeps, drawn
from hil.report.tables import settings

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class ParameterRow:
    """A parameter: what was found, how well, and what the data sheet said.

    Args:
        off: in sigmas of the finding, or "".
    """

    name: str
    found: str
    sheet: str
    off: str


def render(path: Path) -> Path:
    """Write the page of the calibration `path` beside it, and return its path.

    Raises:
        RunError: this is no calibration, or the page cannot be written.
    """
    target = path.with_suffix(".html")
    write_atomic(target, page("certificate.html", read(path)).encode())
    return target


def read(path: Path) -> dict[str, object]:
    """Return what the template shows of the calibration `path`, by name.

    Raises:
        RunError: this is no calibration.
    """
    table, notes = _read(path)
    return contents(path.stem, table, _sweeps(path, _mapping(table, "raw"), notes), notes)


def contents(name: str, table: Facts, sweeps: Mapping[str, Sweeps], notes: list[str]) -> dict[str, object]:
    """Return what the template shows, by name."""
    good, kind = table.get("good") is True, str(table.get("provenance"))
    badge, origin = PROVENANCE.get(kind, UNKNOWN)
    steps = [step for step in _list(table, "step") if isinstance(step, Mapping)]
    bad = [step for step in steps if not _good(step)]
    nominal = _mapping(_mapping(table, "belief"), "settings")
    twin = next((step for step in steps if step.get("name") == "twin"), None)
    with figures.style():
        shown = [_step(step, sweeps.get(str(step.get("name")), {}), nominal) for step in steps]
    return {
        "name": name,
        "good": good,
        "sentence": _sentence(good, bad, len(steps)),
        "kind": kind if kind in PROVENANCE else "unknown",
        "badge": badge,
        "origin": origin,
        "notes": notes,
        "tiles": list(_tiles(table, steps)),
        "todo": [(step.get("name"), problem) for step in bad for problem in _problems(step) if problem["kind"] != "skipped"],
        "twin": list(_rows(_mapping(twin or {}, "estimates"), nominal)),
        "use": str(_mapping(table, "belief").get("use", "")),
        "steps": shown,
        "settings": settings(_mapping(table, "settings")),
        "instruments": _mapping(table, "instruments"),
        "versions": _mapping(table, "versions"),
        "taken_at": str(table.get("taken_at", "at an unknown time")),
    }


def _sentence(good: bool, bad: list[Facts], count: int) -> str:
    if good:
        return f"all {count} calibration steps passed"
    names = ", ".join(str(step.get("name")) for step in bad)
    return f"nothing uses this calibration: {names} not good" if names else "nothing uses this calibration"


def _tiles(table: Facts, steps: list[Facts]) -> Iterator[Tile]:
    done = sum(map(_good, steps))
    yield Tile("steps good", f"{done} of {len(steps)}")
    yield Tile("taken", str(table.get("taken_at", "unknown"))[:16].replace("T", " "), str(table.get("bench", "")))
    check = next((step for step in steps if step.get("name") == "honesty"), None)
    rms = None if check is None else check.get("residual_rms")
    if check is not None and isinstance(rms, int | float):
        unit, noise = str(check.get("residual_unit", "1")), _mapping(check, "figures").get("noise")
        yield Tile(
            "the twin is off by", f"{quantity(rms, unit)} rms", f"noise of a reading {quantity(float(noise or 0), unit)}"
        )
    yield Tile("took", duration(sum(float(step.get("took_s", 0.0)) for step in steps)))


def _step(step: Facts, sweeps: Sweeps, nominal: Facts) -> dict[str, object]:
    name, success = str(step.get("name")), [bool(channel) for channel in _list(step, "success")]
    ordered = {each: sweeps[each] for each in map(str, _list(step, "raw")) if each in sweeps}
    problems = _problems(step)
    rms = step.get("residual_rms")
    facts = [(key.replace("_", " "), f"{value:.4g}") for key, value in _mapping(step, "figures").items()]
    if isinstance(rms, int | float):
        facts.insert(0, ("residuals", f"{quantity(float(rms), str(step.get('residual_unit', '1')))} rms"))
    if len(success) > 1:
        facts.insert(0, ("channels good", f"{sum(success)} of {len(success)}"))
        if not all(success):
            facts.insert(1, ("channels not good", ", ".join(str(n) for n, fine in enumerate(success, 1) if not fine)))
    return {
        "name": name,
        "said": str(step.get("said", "")),
        "good": _good(step),
        "skipped": any(problem["kind"] == "skipped" for problem in problems),
        "problems": problems,
        "rows": list(_rows(_mapping(step, "estimates"), nominal if name == "twin" else {})),
        "facts": [*facts, ("took", duration(float(step.get("took_s", 0.0))))],
        "figures": list(drawn(name, ordered)),
    }


def _rows(estimates: Facts, nominal: Facts) -> Iterator[ParameterRow]:
    for name, found in estimates.items():
        value, sigma, unit = found.get("value"), found.get("sigma"), str(found.get("unit", "1"))
        sheet = nominal.get(name)
        said = None if isinstance(sheet, bool) or not isinstance(sheet, int | float) else float(sheet)
        off = abs(value - said) / sigma if said is not None and sigma else math.nan
        yield ParameterRow(
            name, _estimate(value, sigma, unit), "-" if said is None else _number(said, unit),
            "-" if math.isnan(off) else f"{off:.1f} σ" if off < 1000 else "> 1000 σ",
        )  # fmt: skip


def _estimate(value: float, sigma: float, unit: str) -> str:
    """Value and sigma with as many digits as sigma deserves."""
    if not sigma:
        return _number(value, unit)
    power = 3 * math.floor(math.log10(max(abs(value), sigma)) / 3) if unit not in ("1", "dB", "rad") else 0
    power = min(9, max(-12, power))
    digits = min(12, max(0, 1 - math.floor(math.log10(sigma / 10.0**power))))
    prefix = ("p", "n", "µ", "m", "", "k", "M", "G")[power // 3 + 4]
    text = f"{value / 10.0**power:.{digits}f} ± {sigma / 10.0**power:.{digits}f}"
    return text if unit == "1" else f"{text} {prefix}{unit}"


def _number(value: float, unit: str) -> str:
    return f"{value:.5g} {unit}" if unit in ("dB", "rad") else quantity(value, unit)


def _good(step: Facts) -> bool:
    return all(_list(step, "success"))


def _problems(step: Facts) -> list[dict[str, str]]:
    keys = ("kind", "what", "evidence", "todo")
    return [{key: str(each.get(key, "")) for key in keys} for each in _list(step, "problem") if isinstance(each, Mapping)]


def _read(path: Path) -> tuple[Facts, list[str]]:
    try:
        table = toml.loads(read_text(path, toml.MOST_BYTES))
    except (RunError, ValueError) as error:
        got = error.got or error.what if isinstance(error, RunError) else str(error)
        raise RunError(
            "not a calibration", where=str(path), got=got, allowed="a file that hil calibrate wrote",
            todo="name another: calibrations/….toml",
        ) from error  # fmt: skip
    if "step" not in table or "taken_at" not in table:
        raise RunError(
            "not a calibration", where=str(path), got=", ".join(table) or "an empty file",
            allowed="a file that hil calibrate wrote", todo="name another: calibrations/….toml",
        )  # fmt: skip
    return table, []


def _sweeps(path: Path, raw: Facts, notes: list[str]) -> dict[str, Sweeps]:
    """Return the sweeps by step; empty, with a note, if they cannot be had."""
    file = path.with_suffix(".safetensors")
    try:
        payload = read_tensors(file)
        if hashlib.sha256(payload).hexdigest() != raw.get("sha256"):
            notes.append(f"{file.name} holds the sweeps of another calibration, or is damaged; they are left out.")
            return {}
        loaded = safetensors.numpy.load(payload)
    except RunError as error:
        notes.append(f"{file.name}, which holds the sweeps, cannot be read: {error.got or error.what}.")
        return {}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:  # a dtype that numpy does not have
        notes.append(f"{file.name} is damaged: {error}.")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, values in loaded.items():
        step, _, sweep = name.partition("/")
        found.setdefault(step, {})[sweep] = np.asarray(values, dtype=np.float64)
    return dict(found)


def _mapping(facts: Facts, key: str) -> Facts:
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(facts: Facts, key: str) -> list[Any]:
    value = facts.get(key)
    return value if isinstance(value, list) else []
