"""The result of a calibration, saved: instruments, settings, time, every step, the fitted twin, all sweeps.

    <bench>-<YYYYMMDD-HHMMSS>.toml          format, bench, shape, good, taken_at, provenance, seed, sha256 of all the rest;
                                            max_age_s; [versions] [instruments.*] [settings.*] [belief] [twin] [raw] [[step]]
    <bench>-<YYYYMMDD-HHMMSS>.safetensors   the sweeps, "<step>/<name>"; its SHA-256 is in [raw]; written first
    <bench>-…-failed.toml                   one that is not good; nothing takes it for a calibration, under this name or another

A file that was changed by hand, cut off, or separated from its sweeps says so when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import tomli_w
from torch import Tensor

from calibration.step import Estimate, Problem, Step
from hil import toml
from hil.device import Provenance
from hil.errors import UNTOUCHED, ConfigError, ContractError, RunError
from hil.files import read_tensors, read_text, slug, there, write_atomic
from hil.settings import arguments

FORMAT = 1
FAILED = "-failed"
ENDINGS = (".toml", ".safetensors", ".html")  # of its files, and of its page
AGAIN = "name an intact calibration, or calibrate again: hil calibrate BENCH.toml"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Instrument:
    """The instrument that answered."""

    maker: str
    model: str
    serial: str
    firmware: str

    def __str__(self) -> str:
        return f"{self.maker} {self.model} SN {self.serial} fw {self.firmware}"


@dataclass(frozen=True, slots=True)
class TwinChoice:
    """A twin as a file names it: the class, and the settings that make it.

    Args:
        use: "module:Class".
        settings: all of them; of a nominal twin, those of the bench file and, for the rest, those of its data sheet.
        stated: the settings that the bench file gives; None where nobody wrote it down.
        spread: standard deviation between specimens, by setting, as the data sheet has it.
    """

    use: str
    settings: Mapping[str, Any]
    stated: tuple[str, ...] | None = None
    spread: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A calibration, whole.

    Args:
        bench, shape: of the bench file.
        taken_at: ISO 8601 with zone.
        provenance: who was measured.
        seed: of the drives.
        versions: of hil and torch.
        instruments: by their names in the bench file.
        settings: by table, those of the bench file that change what is measured; TOML values.
        steps: as they were done.
        nominal: the twin before; the table [belief] of the file.
        twin: the fitted one; None where none was fitted.
        max_age_s: when it is older, the bench file refuses it; None where nobody wrote it down.
    """

    bench: str
    shape: str
    taken_at: str
    provenance: Provenance
    seed: int
    versions: Mapping[str, str]
    instruments: Mapping[str, Instrument]
    settings: Mapping[str, Mapping[str, Any]]
    steps: tuple[Step, ...]
    nominal: TwinChoice | None = None
    twin: TwinChoice | None = None
    max_age_s: float | None = None

    @property
    def good(self) -> bool:
        """True if something was measured, and every step is good."""
        return bool(self.steps) and bool(self.instruments) and all(step.good for step in self.steps)

    @property
    def name(self) -> str:
        """Name of its files, without an ending."""
        return f"{slug(self.bench, 'bench')}-{self.taken:%Y%m%d-%H%M%S}{'' if self.good else FAILED}"

    @property
    def taken(self) -> datetime:
        """Date and time at which it was taken, with zone."""
        return datetime.fromisoformat(self.taken_at)

    def step(self, name: str) -> Step | None:
        """Return the step called `name`, or None if it was not done."""
        return next((step for step in self.steps if step.name == name), None)

    def save(self, folder: Path) -> Path:
        """Write both files into `folder`, never over others; returns the path of the TOML.

        Raises:
            RunError: they cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = next(p for p in self._free(folder) if not any(there(p.with_suffix(ending)) for ending in ENDINGS))
            sweeps = {f"{s.name}/{name}": t.detach().cpu().contiguous() for s in self.steps for name, t in s.raw.items()}
            payload = safetensors.torch.save(sweeps)
            write_atomic(path.with_suffix(".safetensors"), payload)
            table = self._table({"file": f"{path.stem}.safetensors", "sha256": hashlib.sha256(payload).hexdigest()})
            write_atomic(path, tomli_w.dumps(table).encode())
        except (OSError, RunError) as error:
            raise RunError(
                "the calibration cannot be saved", where=str(folder),
                got=error.what if isinstance(error, RunError) else error.strerror or str(error),
                allowed="a folder that you may write to, with free space", todo="choose another folder: --out",
            ) from error  # fmt: skip
        return path

    def _free(self, folder: Path) -> Iterator[Path]:
        yield folder / f"{self.name}.toml"
        stem = self.name.removesuffix(FAILED)
        yield from (folder / f"{stem}-{n}{'' if self.good else FAILED}.toml" for n in range(1, 1000))

    def _table(self, raw: Mapping[str, str]) -> dict[str, Any]:
        """Return the table that the file has."""
        table: dict[str, Any] = {
            "format": FORMAT, "bench": self.bench, "shape": self.shape, "good": self.good, "taken_at": self.taken_at,
            "provenance": self.provenance, "seed": self.seed, "versions": dict(self.versions),
            "instruments": {name: asdict(who) for name, who in self.instruments.items()},
            "settings": {name: dict(rows) for name, rows in self.settings.items()},
        }  # fmt: skip
        if self.max_age_s is not None:
            table["max_age_s"] = float(self.max_age_s)
        for name, model in (("belief", self.nominal), ("twin", self.twin)):
            if model is not None:
                table[name] = _model_table(model)
        table |= {"raw": dict(raw), "step": [_step_table(step) for step in self.steps]}
        return {**table, "sha256": digest(table)}

    @classmethod
    def load(cls, path: Path, sweeps: bool = True) -> Certificate:
        """Read a calibration, good or not.

        Args:
            path: of the certificate, a TOML file; the sweeps lie beside it.
            sweeps: read the sweeps too; without them every step's `raw` is empty.

        Raises:
            ConfigError: missing, torn, changed, of another format, or without its sweeps.
        """
        table = _parsed(path)
        if table.get("format") != FORMAT:
            raise _damaged(str(path), "not a calibration of this format", repr(table.get("format")), f"format = {FORMAT}")
        if digest({key: value for key, value in table.items() if key != "sha256"}) != table.get("sha256"):
            raise _damaged(str(path), "it was changed after it was written", "another sha256", "the file that hil wrote")
        with _damage():
            file = _File(**arguments(_File, table, str(path), finite=False))
            raw = _sweeps(path, file.raw) if sweeps else {}
            made = file.certificate(str(path), raw)
        if made.good != file.good:
            raise _damaged(str(path), "good does not follow from its steps", f"good = {file.good}", f"{made.good}".lower())
        return made

    @classmethod
    def load_good(cls, path: Path) -> Certificate:
        """Read one that may be relied on; without its sweeps.

        Raises:
            ConfigError: as `load`, and for one that is not good.
        """
        made = cls.load(path, sweeps=False)
        if not made.good:
            bad = [step.name for step in made.steps if not step.good] or ["nothing was measured"]
            raise _damaged(
                str(path), "this calibration failed", f"not good: {', '.join(bad)}", "one all of whose steps are good",
                "put the bench right, then: hil calibrate BENCH.toml",
            )  # fmt: skip
        return made


def digest(table: Mapping[str, Any]) -> str:
    """SHA-256 of what a table says, whatever its order and layout in a file."""
    return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()


def _model_table(model: TwinChoice) -> dict[str, Any]:
    stated = {} if model.stated is None else {"stated": list(model.stated)}
    spread = {"spread": dict(model.spread)} if model.spread else {}
    return {"use": model.use, **stated, "settings": dict(model.settings), **spread}


def _step_table(step: Step) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": step.name, "said": step.said, "success": list(step.success), "took_s": float(step.took_s),
        "raw": list(step.raw),
    }  # fmt: skip
    if step.residual_rms is not None:
        table |= {"residual_rms": float(step.residual_rms), "residual_unit": step.residual_unit}
    table["figures"] = {name: float(value) for name, value in step.figures.items()}
    table["estimates"] = {
        name: {"value": float(e.value), "sigma": float(e.sigma), "unit": e.unit} for name, e in step.estimates.items()
    }
    table["problem"] = [asdict(problem) for problem in step.problems]
    return table


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return toml.loads(read_text(path, toml.MOST_BYTES, ConfigError))
    except ConfigError as error:
        if there(path):
            got = error.got or error.what
            raise _damaged(str(path), "cannot be read", got, "a TOML file of hil calibrate") from error
        raise ConfigError(
            "no such calibration",
            where=str(path),
            outputs=UNTOUCHED,
            todo="give its path, or make one: hil calibrate BENCH.toml",
        ) from error
    except ValueError as error:
        raise _damaged(str(path), "not TOML", str(error), "the file that hil calibrate wrote, whole") from error


def _sweeps(path: Path, raw: Mapping[str, str]) -> dict[str, Tensor]:
    file = path.with_name(Path(raw.get("file", "")).name or path.name)
    if not file.is_file():  # copied or renamed together
        file = path.with_suffix(".safetensors")
    try:
        payload = read_tensors(file, ConfigError)
    except ConfigError as error:
        what = "these are not the sweeps of this calibration" if there(file) else "the sweeps of this calibration are missing"
        raise _damaged(str(file), what, error.got or error.what, f"the file beside {path.name}") from error
    try:
        if hashlib.sha256(payload).hexdigest() != raw.get("sha256"):
            raise _damaged(str(file), "these are not the sweeps of this calibration", "another sha256", f"those of {path.name}")
        return dict(safetensors.torch.load(payload))
    except safetensors.SafetensorError as error:
        raise _damaged(str(file), "not a safetensors file", str(error), "the file that hil calibrate wrote, whole") from error


Parts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _File:
    """The TOML of a certificate."""

    format: int
    bench: str
    shape: str
    good: bool
    taken_at: str
    provenance: Provenance
    seed: int
    versions: Mapping[str, str]
    instruments: Parts
    settings: Parts
    raw: Mapping[str, str]
    step: Sequence[Mapping[str, Any]]
    sha256: str
    belief: Mapping[str, Any] | None = None  # the nominal twin; files have called it so from the first
    twin: Mapping[str, Any] | None = None
    max_age_s: float | None = None

    def certificate(self, path: str, raw: Mapping[str, Tensor]) -> Certificate:
        """Make the certificate that the file holds; `raw`: every sweep, or empty.

        Raises:
            ConfigError: a part of it makes no sense.
        """
        models = {"belief": self.belief, "twin": self.twin}
        made = {name: _made(TwinChoice, part, f"{path}: [{name}]") for name, part in models.items() if part is not None}
        return Certificate(
            self.bench, self.shape, _zoned(self.taken_at, path), self.provenance, self.seed, self.versions,
            {name: _made(Instrument, who, f"{path}: [instruments.{name}]") for name, who in self.instruments.items()},
            self.settings,
            tuple(_made(_StepFile, part, f"{path}: [step {part.get('name')}]").step(path, raw) for part in self.step),
            nominal=made.get("belief"), twin=made.get("twin"),
            max_age_s=self.max_age_s,
        )  # fmt: skip


@dataclass(frozen=True)
class _StepFile:
    """A table [[step]] of the file."""

    name: str
    said: str
    success: tuple[bool, ...]
    took_s: float
    raw: Sequence[str]
    figures: Mapping[str, float]
    estimates: Parts
    problem: Sequence[Mapping[str, Any]]
    residual_rms: float | None = None
    residual_unit: str = "1"

    def step(self, path: str, raw: Mapping[str, Tensor]) -> Step:
        """Make the step that the table holds; `raw`: every sweep, or empty.

        Raises:
            ConfigError: a sweep is missing, or a value makes no sense.
        """
        place = f"{path}: [step {self.name}]"
        missing = [each for each in self.raw if raw and f"{self.name}/{each}" not in raw]
        if missing:
            raise _damaged(place, "a sweep is missing", f"no {', '.join(missing)}", "the sweeps of each step")
        return Step(
            self.name, self.said,
            {name: _made(Estimate, {"unit": None, **part}, f"{place} {name}") for name, part in self.estimates.items()},
            self.success,  # an estimate without its unit is none, and takes no default
            tuple(_made(Problem, part, place) for part in self.problem), self.residual_rms, self.residual_unit, self.figures,
            {each: raw[f"{self.name}/{each}"] for each in self.raw} if raw else {}, self.took_s,
        )  # fmt: skip


def _made(kind: Callable[..., T], table: Mapping[str, Any], place: str) -> T:
    """Raises: ConfigError: another table than a `kind` makes."""
    try:
        return kind(**arguments(kind, table, place, finite=False))
    except ContractError as error:
        raise _damaged(place, error.what, error.got, "a finite value, a sigma of 0 or more") from error


def _zoned(text: str, path: str) -> str:
    try:
        zoned = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        zoned = False
    if not zoned:
        raise _damaged(path, "taken_at is not a time", repr(text), "ISO 8601 with zone: 2026-11-22T01:45:12+00:00")
    return text


@contextmanager
def _damage() -> Iterator[None]:
    """Refuse what is wrong in a file that hil wrote as damage: no person is to correct it."""
    try:
        yield
    except ConfigError as error:
        error.todo = AGAIN
        raise


def _damaged(where: str, what: str, got: str, allowed: str = "", todo: str = AGAIN) -> ConfigError:
    return ConfigError(what, where=where, got=got, allowed=allowed, outputs=UNTOUCHED, todo=todo)
