"""A calibration, held against the bench that it is used on: what is refused, by whom, and what is believed of the node then.

[calibration]                                in a bench file
use = "calibrations/bench-….toml"            as other files are found: beside the bench file or above it
max_age = "24 h"                             older ones are stale
policy = "refuse"                            or "warn": what differs is said and written down, and it is used all the same

    missing, damaged, failed     ConfigError, whatever the policy               nothing was opened
    other settings, stale        ConfigError                                    nothing was opened
    other serial numbers         WrongInstrument                                outputs off, read back
    other firmware               is said

A run keeps a copy, calibration.toml, beside its bench.toml. It was in order when the run began, so a resume refuses nothing for
its age.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from calibration.certificate import Certificate, Instrument
from calibration.validity import Difference, age_s, aged, instruments_differ, settings_differ, span
from drivers.waveform import WaveformSettings
from hil import toml
from hil.config import Bench, CalibrationTable, InstrumentTable, Using, find, read_bench
from hil.errors import ConfigError, WrongInstrument
from hil.files import read_bytes
from hil.hints import quoted
from hil.naming import UNTOUCHED, arguments, resolve
from hil.units import quantity

FILE = "calibration.toml"
NOT_SETTINGS = ("scpi", "link", "expect", "provenance")  # of a driver: what the bench gives it
SHAPES = {"waveform": WaveformSettings}  # the class behind the table that has a shape's name


@dataclass(frozen=True)
class Certified:
    """The calibration that a bench file names, as far as it can be judged without the bench. said: what must be told."""

    path: Path
    certificate: Certificate
    policy: str
    where: str
    said: tuple[str, ...]

    @property
    def twin(self) -> Using | None:
        """The belief that it found."""
        model = self.certificate.twin
        return None if model is None else Using.model_validate({"use": model.use, **model.settings})

    @property
    def title(self) -> str:
        return f"{self.certificate.name}, {self.certificate.taken_at}"

    def met(self, answered: Mapping[str, Instrument]) -> tuple[str, ...]:
        """What must be told once the instruments have answered.

        Raises:
            WrongInstrument: others than those that were calibrated, and the policy is to refuse.
        """
        found = list(instruments_differ(self.certificate, answered))
        wrong = [difference for difference in found if difference.refuses]
        if wrong and self.policy == "refuse":
            raise WrongInstrument(
                "the calibration is of other instruments", where=str(self.path), got=_listed(wrong),
                allowed="the instruments that were calibrated", outputs="off, read back, as the bench is closed again",
                todo=_todo(self.where, "connect those"),
            )  # fmt: skip
        return tuple(f"calibration {self.path.name}: {difference}" for difference in found)


def certified(bench: Bench, where: Path, kept: bool = False, now: datetime | None = None) -> Certified | None:
    """The calibration of `bench`, read from the file `where`, or None if it names none.

    Args:
        kept: `where` is a run's copy, and the calibration lies beside it. now: with zone.
    Raises:
        ConfigError: it is missing, damaged or failed; or, unless the policy is to warn, of other settings or stale.
    """
    table = bench.calibration
    if table.use is None:
        return None
    place = f"{where}: [calibration]"
    path = where.parent / FILE if kept else find(table.use, where)
    certificate = Certificate.load_good(path)
    if certificate.shape != bench.shape:
        raise ConfigError(
            "the calibration is of a bench of another shape", where=place, got=certificate.shape, allowed=bench.shape,
            outputs=UNTOUCHED, todo=_todo(str(where), "name another"),
        )  # fmt: skip
    found = [*settings_differ(certificate, settings_of(bench, str(where)))]
    most_s = _max_age_s(table, place)
    old = [*aged(certificate, now or datetime.now().astimezone(), most_s)]
    if not kept:
        found += old
    if found and table.policy == "refuse":
        raise ConfigError(
            f"the calibration {path.name} does not hold here", where=place, got=_listed(found),
            allowed="the bench as it was calibrated", outputs=UNTOUCHED, todo=_todo(str(where), "undo the change"),
        )  # fmt: skip
    told = [*found, *(old if kept else [])]
    return Certified(path, certificate, table.policy, str(where), tuple(f"calibration {path.name}: {each}" for each in told))


def settings_of(bench: Bench, where: str) -> dict[str, dict[str, Any]]:
    """The tables of `bench` that change what is measured, by name: of every instrument, and the one named as the shape.

    Addresses, timeouts, recovery, logs, safety and the virtual side do not; who answers is judged by serial number.

    Raises:
        ConfigError: an unknown key or driver.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in type(bench).model_fields:
        value, place = getattr(bench, name), f"{where}: [{name}]"
        if isinstance(value, InstrumentTable):
            given = arguments(resolve(value.use, place), value.settings(), place, skip=NOT_SETTINGS)
            found[name] = {"use": value.use, **_plain(given)}
        elif name == bench.shape and isinstance(value, Mapping):
            made = SHAPES.get(name)
            found[name] = _plain(asdict(made(**arguments(made, value, place))) if made else value)
    return found


def belief_of(bench: Bench, where: Path, kept: bool) -> Using | None:
    """What is believed of the node: what its calibration found, else the bench file's [twin].

    Raises: as `certified`.
    """
    pinned = certified(bench, where, kept)
    found = None if pinned is None else pinned.twin
    return found or getattr(bench, "twin", None)


def bench_files(name: str, near: Path) -> dict[str, bytes]:
    """What a run keeps of the bench file `name`: its copy, and that of the calibration it uses, by their names in the folder.

    Raises:
        ConfigError: one of them is missing, or the bench file makes no sense.
    """
    path = find(name, near)
    use = read_bench(path).calibration.use
    kept = {"bench.toml": read_bytes(path, toml.MOST_BYTES, ConfigError)}
    return kept if use is None else {**kept, FILE: read_bytes(find(use, path), toml.MOST_BYTES, ConfigError)}


def age_of(certificate: Certificate) -> str:
    """In words."""
    return span(max(0.0, age_s(certificate, datetime.now().astimezone())))


def max_age_s(bench: Bench, where: Path) -> float:
    """Raises: ConfigError: it is no time."""
    return _max_age_s(bench.calibration, f"{where}: [calibration]")


def _max_age_s(table: CalibrationTable, place: str) -> float:
    seconds = quantity(table.max_age, "second", f"{place} max_age")
    if not seconds > 0:
        raise ConfigError(
            "not an age", where=f"{place} max_age", got=f"{table.max_age}", allowed='above 0, as "24 h"', outputs=UNTOUCHED,
            todo="correct the value",
        )  # fmt: skip
    return seconds


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """As TOML gives it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items() if value is not None}


def _listed(found: Sequence[Difference]) -> str:
    return "; ".join(map(str, found[:4])) + (f"; {len(found) - 4} more" if len(found) > 4 else "")


def _todo(where: str, else_: str) -> str:
    return (
        f'{else_}, or calibrate again: hil calibrate {quoted(where)}; or, to go on all the same: [calibration] policy = "warn"'
    )
