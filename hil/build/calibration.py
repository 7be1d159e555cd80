"""A calibration, held against the bench that it is used on: what is refused, by whom, and which model of the node holds.

[calibration]                                in a bench file
use = "calibrations/bench-….toml"            as other files are found: beside the bench file or above it
max_age = "24 h"                             older ones are stale
policy = "refuse"                            or "warn": what differs is said and written down, and it is used all the same

    missing, damaged, failed     ConfigError, whatever the policy               nothing was opened
    other settings, stale        ConfigError                                    nothing was opened
    other serial numbers         WrongInstrument                                outputs off, read back
    other firmware               is said

A run keeps a copy, calibration.toml, beside its bench.toml, and projection_calibration.toml beside projection.toml. It was in
order when the run began, so a resume refuses nothing for its age.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from calibration.certificate import Certificate, Instrument
from calibration.validity import Difference, age_s, aged, instruments_differ, settings_differ, span
from hil import toml
from hil.config import modules
from hil.config.bench import BenchFile
from hil.config.experiment import COPIES, KEPT, Experiment
from hil.config.read import find
from hil.config.resolve import UNTOUCHED, Choice, twin_choice
from hil.errors import ConfigError, WrongInstrument
from hil.files import read_bytes
from hil.hints import quoted


@dataclass(frozen=True)
class Certified:
    """The calibration that the file of `bench` names, as far as it can be judged without it.

    Args:
        said: what must be told.
    """

    path: Path
    certificate: Certificate
    bench: BenchFile
    said: tuple[str, ...]

    @property
    def twin(self) -> Choice | None:
        """The twin that it fitted."""
        model = self.certificate.twin
        return None if model is None else twin_choice(model.use, model.settings, f"{self.path}: [twin]")

    @property
    def title(self) -> str:
        """Name and time of the calibration, for people."""
        return f"{self.certificate.name}, {self.certificate.taken_at}"

    def met(self, answered: Mapping[str, Instrument], outputs: str) -> tuple[str, ...]:
        """Return what must be told once the instruments have answered.

        Args:
            answered: who did, by name.
            outputs: what is known of them once the bench is closed, for the error.

        Raises:
            WrongInstrument: others than those that were calibrated, and the policy is to refuse.
        """
        found = list(instruments_differ(self.certificate, answered))
        wrong = [difference for difference in found if difference.refuses]
        if wrong and self.bench.calibration.policy == "refuse":
            raise WrongInstrument(
                "the calibration is of other instruments", where=str(self.path), got=_listed(wrong),
                allowed="the instruments that were calibrated", outputs=f"{outputs}, as the bench is closed again",
                todo=_todo(self.bench, "connect those"),
            )  # fmt: skip
        return tuple(f"calibration {self.path.name}: {difference}" for difference in found)


def certified(bench: BenchFile, kept: bool = False, now: datetime | None = None) -> Certified | None:
    """Return the calibration of `bench`, or None if it names none.

    Args:
        bench: its file, read.
        kept: the bench file is a run's copy, and the calibration lies beside it.
        now: with zone; left out: the clock of this computer.

    Raises:
        ConfigError: it is missing, damaged or failed; or, unless the policy is to warn, of other settings or stale.
    """
    table = bench.calibration
    if table.use is None:
        return None
    path = bench.file.with_name(KEPT.get(bench.file.name, KEPT["bench.toml"])) if kept else find(table.use, bench.file)
    certificate = Certificate.load_good(path)
    if certificate.shape != bench.shape:
        raise ConfigError(
            "the calibration is of a bench of another shape", where=table.place, got=certificate.shape, allowed=bench.shape,
            outputs=UNTOUCHED, todo=_todo(bench, "name another"),
        )  # fmt: skip
    found = [*settings_differ(certificate, settings_of(bench))]
    old = [*aged(certificate, now or datetime.now().astimezone(), table.max_age_s)]
    if not kept:
        found += old
    if found and table.policy == "refuse":
        raise ConfigError(
            f"the calibration {path.name} does not hold here", where=table.place, got=_listed(found),
            allowed="the bench as it was calibrated", outputs=UNTOUCHED, todo=_todo(bench, "undo the change"),
        )  # fmt: skip
    told = [*found, *(old if kept else [])]
    return Certified(path, certificate, bench, tuple(f"calibration {path.name}: {each}" for each in told))


def settings_of(bench: BenchFile) -> dict[str, dict[str, Any]]:
    """The tables of `bench` that change what is measured, by name: of every instrument, and those of its shape.

    Addresses, timeouts, recovery, logs, safety and the virtual side do not; who answers is judged by serial number.
    """
    held = {name: {"set": one.set} if one.set else {} for name, one in bench.instruments.items()}
    found = {name: {"use": one.use, **_plain(one.choice.settings), **held[name]} for name, one in bench.instruments.items()}
    return found | {name: _plain(table) for name, table in bench.how.settings(bench).items()}


def twin_choice_of(bench: BenchFile, kept: bool) -> Choice | None:
    """Return the model of the node: what its calibration found, else the bench file's [twin].

    Raises: as `certified`.
    """
    pinned = certified(bench, kept)
    found = None if pinned is None else pinned.twin
    return found or (None if bench.twin is None else bench.twin.choice)


def bench_files(bench: BenchFile, copy: str = "bench.toml") -> dict[str, bytes]:
    """Return the files that a run keeps of a bench: its own and its calibration's, by their names in the folder.

    Args:
        bench: its file, read.
        copy: the name of the bench file there.

    Raises:
        ConfigError: one of them is missing.
    """
    use = bench.calibration.use
    kept = {copy: read_bytes(bench.file, toml.MOST_BYTES, ConfigError)}
    return kept if use is None else {**kept, KEPT[copy]: read_bytes(find(use, bench.file), toml.MOST_BYTES, ConfigError)}


def kept_files(experiment: Experiment, named: Sequence[Path]) -> dict[str, bytes]:
    """Return the files that a run keeps besides config.toml: of its benches, and the folders of their modules.

    Args:
        experiment: as it was read.
        named: the files that name the benches.

    Raises:
        ConfigError: one of them is missing.
    """
    found: dict[str, bytes] = {}
    origins = {"config.toml": [*named]}
    for table, bench in (("device", experiment.bench), ("projection", experiment.projection_bench)):
        if bench is not None:
            found |= bench_files(bench, COPIES[table])
            origins[COPIES[table]] = [bench.file, *named]
    return {**found, modules.ORIGINS: modules.origins(origins)}


def age_of(certificate: Certificate) -> str:
    """Write the age of a calibration in words."""
    return span(max(0.0, age_s(certificate, datetime.now().astimezone())))


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table as TOML gives it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items() if value is not None}


def _listed(found: Sequence[Difference]) -> str:
    return "; ".join(map(str, found[:4])) + (f"; {len(found) - 4} more" if len(found) > 4 else "")


def _todo(bench: BenchFile, else_: str) -> str:
    again = f"{else_}, or calibrate again: hil calibrate {quoted(bench.file)}"
    return f'{again}; or, to go on all the same: [calibration] policy = "warn"'
