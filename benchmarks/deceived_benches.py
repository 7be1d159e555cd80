"""Benches that are not what their files say: hil calibrate must say what each is, and save nothing as good.

Each is the bench file with one lie in its virtual side (or a range that is too small), calibrated whole by
`hil.commands.calibrate.calibrate`. What counts is the first problem that was reported: it is what the user is told to mend.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch
from hidden_benches import BENCH
from rich.console import Console

from calibration.certificate import FAILED, Certificate
from calibration.step import Problem
from hil.commands.calibrate import calibrate
from hil.config.read import read_toml
from hil.errors import NotCalibrated

OTHER = torch.linspace(-4, 4, 33, dtype=torch.float64)
SCOPE = {"box": "scope", "times": 0}


@dataclass(frozen=True)
class Lie:
    """kind: what must be reported. changes: of the bench file, by dotted key."""

    name: str
    kind: str
    changes: Mapping[str, Any]


LIES = (
    Lie("hysteresis of 20 mV", "hysteresis", {"virtual.node.hysteresis_v": 0.02}),
    Lie("hysteresis of 200 mV", "hysteresis", {"virtual.node.hysteresis_v": 0.2}),
    Lie("stuck channel", "stuck", {"virtual.faults": [{**SCOPE, "kind": "stuck", "volts": 0.2}]}),
    Lie("channel that sticks later", "stuck", {"virtual.faults": [{**SCOPE, "kind": "stuck", "volts": 0.2, "after": 12}]}),
    Lie("range too small", "clipped", {"instruments.scope.range": "0.2 V"}),
    Lie("range too small beyond the markers", "clipped", {"virtual.node.phase_rad": -0.9, "instruments.scope.range": "0.34 V",
                                                          "waveform.marker_high": "0.5 V", "waveform.marker_low": "-1 V"}),
    Lie("open instead of 50 ohm", "load", {"virtual.cable.load_ohm": 1e6}),
    Lie("10 kohm instead of 50 ohm", "load", {"virtual.cable.load_ohm": 1e4}),
    Lie("later than a record", "delay", {"virtual.cable.delay": "2.6 us"}),
    Lie("answers of the record before", "delay", {"virtual.faults": [{**SCOPE, "kind": "behind"}]}),
    Lie("a saturating node", "kind", {
        "virtual.node": {"use": "sim_devices.tabulated:Tabulated", "drive": OTHER.tolist(), "noise": 4e-4,
                         "reading": (0.18 + 0.16 * torch.tanh(0.6 * OTHER)).tolist()}}),
    Lie("nearly a modulator", "kind", {
        "virtual.node": {"use": "sim_devices.tabulated:Tabulated", "drive": OTHER.tolist(), "noise": 4e-4,
                         "reading": (0.18 + 0.17 * torch.sin(0.9 * OTHER) + 0.002 * torch.sin(2.7 * OTHER)).tolist()}}),
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """problem: the first one, None if none was found. saved_good: a certificate that could be used."""

    lie: Lie
    problem: Problem | None
    where: str
    saved_good: bool

    @property
    def right(self) -> bool:
        return self.problem is not None and self.problem.kind == self.lie.kind and not self.saved_good


def deceive(lie: Lie, folder: Path) -> Told:
    """Calibrate the bench that lies so, in `folder`."""
    folder.mkdir(parents=True)
    bench, out = folder / "bench.toml", folder / "calibrations"
    bench.write_text(tomli_w.dumps(_changed(read_toml(BENCH), lie.changes)), encoding="utf-8")
    try:
        calibrate(bench, out, 0, Console(file=io.StringIO()))
    except NotCalibrated as error:
        made = [Certificate.load(path, sweeps=False) for path in sorted(out.glob("*.toml"))]
        if not made:
            return Told(lie, Problem("none saved", str(error), "", ""), "", saved_good=False)
        bad = [(step.name, p) for step in made[0].steps for p in step.problems if not step.good and p.kind != "skipped"]
        good = made[0].good or not any(FAILED in path.stem for path in out.glob("*.toml"))
        return Told(lie, bad[0][1] if bad else None, bad[0][0] if bad else "", good)
    return Told(lie, None, "", saved_good=True)


def _changed(table: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in changes.items():
        *keys, last = path.split(".")
        part = table
        for key in keys:
            part = part[key]
        part[last] = value
    return table
