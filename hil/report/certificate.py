"""One page beside a saved calibration: the verdict, the main figures, the fitted model, every step, settings, origin.

What failed comes first, with what to do about it. Raw sweeps of the steps are folded away beneath the main figures.

Read as plain data, so that a damaged one, or one without its sweeps, still gives a page that says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from hil import toml
from hil.errors import RunError
from hil.files import read_tensors, read_text
from hil.report.calibration import words
from hil.report.calibration.camera import camera
from hil.report.calibration.loop import loop
from hil.report.calibration.mesh import mesh
from hil.report.calibration.record import Facts, Measured, Record, StepRecord, Sweeps, mapping
from hil.report.calibration.vector import vector
from hil.report.calibration.verdict import Verdict, error_of_model, moment, three, verdict
from hil.report.calibration.waveform import waveform
from hil.report.figure import Figure
from hil.report.headline import PROVENANCE, UNKNOWN, Tile, duration
from hil.report.page import publish
from hil.report.sweep_figures import UNITS, drawn, label
from hil.report.tables import settings

MAIN = (waveform, mesh, camera, vector, loop)


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as the page shows it.

    Args:
        record: as it was saved.
        name: in words.
        rows: what it found. facts: its other numbers, by name.
        raw: its sweeps by the rule that any step can keep; they are on the page only, their numbers are in the sweeps' file.
        open: not folded away.
    """

    record: StepRecord
    name: str
    rows: tuple[words.ParameterRow, ...]
    facts: tuple[tuple[str, str], ...]
    raw: tuple[Figure, ...]
    open: bool


def render(path: Path) -> Path:
    """Write the page of the calibration `path` beside it, and its figures to NAME.figures; return the path of the page.

    Raises:
        RunError: this is no calibration, or the page cannot be written.
    """
    return publish(path.with_suffix(".html"), "certificate.html", read(path), f"{path.stem}.figures")


def sentence_of(path: Path) -> str:
    """Return the verdict of the calibration `path` in one sentence, the one at the top of its page.

    Raises:
        RunError: this is no calibration.
    """
    table, _ = _read(path)
    return verdict(table, Record.of(table, {})).sentence


def read(path: Path) -> dict[str, object]:
    """Return what the template shows of the calibration `path`, by name.

    Raises:
        RunError: this is no calibration.
    """
    table, notes = _read(path)
    return contents(path.stem, table, _sweeps(path, mapping(table, "raw"), notes), notes)


def contents(name: str, table: Facts, sweeps: Mapping[str, Sweeps], notes: list[str]) -> dict[str, object]:
    """Return what the template shows, by name."""
    record, kind = Record.of(table, sweeps), str(table.get("provenance"))
    judged, steps = verdict(table, record), [*record.steps.values()]
    sentence = judged.sentence.removeprefix("NOT VALID, ")
    badge, origin = PROVENANCE.get(kind, UNKNOWN)
    belief, main = mapping(table, "belief"), [figure for make in MAIN for figure in make(record)]
    reading, drive = words.reading_unit(record), record.step("dark").unit_of("drive", UNITS, "V")
    return {
        "name": name,
        "good": judged.good,
        "sentence": f"{sentence[0].upper()}{sentence[1:]}",
        "kind": kind if kind in PROVENANCE else "unknown",
        "badge": badge,
        "origin": origin,
        "notes": notes,
        "tiles": list(_tiles(table, record, judged)),
        "todo": [(words.step_name(s.name), p) for s in steps if not s.good for p in s.problems if p.kind != "skipped"][1:],
        "main": main,
        "model": list(words.parameters(record.step("twin"), belief)),
        "use": str(belief.get("use", "")).rpartition(":")[2],
        "steps": [_step(step, reading, drive, not main) for step in steps],
        "settings": [(section, [_setting(*row) for row in rows]) for section, rows in settings(mapping(table, "settings"))],
        "instruments": mapping(table, "instruments"),
        "versions": mapping(table, "versions"),
        "bench": str(table.get("bench", "unknown")),
        "taken": _taken(table),
    }


def _tiles(table: Facts, record: Record, judged: Verdict) -> Iterator[Tile]:
    steps, check = [*record.steps.values()], record.step("honesty")
    yield Tile("steps passed", f"{sum(step.good for step in steps)} of {len(steps)}")
    if check.residual_rms is not None:
        off, _, share = error_of_model(check).partition(" (")
        yield Tile("error of the model", off, share.rstrip(")"))
        if "noise" in check.figures:
            yield Tile("noise of a reading", f"{three(check.figures['noise'], check)} rms")
    taken, took = _taken(table), f"took {duration(sum(step.took_s for step in steps))}"
    yield Tile("taken", taken[:16], f"{taken[16:].strip()}, {took}".strip(", "))
    if judged.good and judged.until:
        yield Tile("valid until", judged.until[:16], judged.until[16:].strip())


def _taken(table: Facts) -> str:
    try:
        return moment(datetime.fromisoformat(str(table.get("taken_at"))))
    except ValueError:
        return "at an unknown time"


def _step(step: StepRecord, reading: str, drive: str, alone: bool) -> StepView:
    facts = list(words.figures(step, reading, drive))
    if step.residual_rms is not None:
        facts.insert(0, ("residuals, rms", str(Measured(float(f"{step.residual_rms:.3g}"), 0.0, step.residual_unit))))
    if len(step.success) > 1:
        facts.insert(0, ("channels that passed", f"{sum(step.success)} of {len(step.success)}"))
        if not step.good:
            facts.insert(1, ("channels that failed", ", ".join(str(n) for n, fine in enumerate(step.success, 1) if not fine)))
    raw = () if step.skipped else tuple(drawn(step.name, step.sweeps))
    return StepView(
        step,
        words.step_name(step.name),
        tuple(words.results(step)),
        (*facts, ("took", duration(step.took_s))),
        raw,
        alone or not step.good,
    )


def _setting(key: str, value: str) -> tuple[str, str]:
    """Name and value of a setting, its unit behind the value instead of in the name."""
    _, unit = label(key)
    if not unit or value == "-":
        return key, value
    try:
        shown = str(Measured(float(value), 0.0, unit))
    except ValueError:  # one for each channel
        shown = f"{value} {unit}"
    return key.rpartition("_")[0], shown


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
            notes.append(f"{file.name} holds the sweeps of another calibration, or is damaged; the figures are left out.")
            return {}
        loaded = safetensors.numpy.load(payload)
    except RunError as error:
        notes.append(
            f"{file.name}, which holds the sweeps, cannot be read: {error.got or error.what}; the figures are left out."
        )
        return {}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:  # a dtype that numpy does not have
        notes.append(f"{file.name} is damaged: {error}; the figures are left out.")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, values in loaded.items():
        step, _, sweep = name.partition("/")
        found.setdefault(step, {})[sweep] = np.asarray(values, dtype=np.float64)
    return dict(found)
