"""What a calibration found, saved: on which instruments, under which settings, when, every step, the fitted twin, all sweeps.

    <bench>-<YYYYMMDD-HHMMSS>.toml          format, bench, shape, good, taken_at, provenance, seed, sha256 of all the rest;
                                            [versions] [instruments.*] [settings.*] [belief] [twin] [raw] [[step]]
    <bench>-<YYYYMMDD-HHMMSS>.safetensors   the sweeps, "<step>/<name>"; its SHA-256 is in [raw]; written first
    <bench>-…-failed.toml                   one that is not good; nothing takes it for a calibration, under this name or another

A file that was changed by hand, cut off, or separated from its sweeps says so when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

import safetensors
import safetensors.torch
import tomli_w
from torch import Tensor

from calibration.step import Estimate, Problem, Step
from hil import toml
from hil.device import Provenance
from hil.errors import UNTOUCHED, ConfigError, ContractError, RunError
from hil.files import read_tensors, read_text, slug, there, write_atomic

FORMAT = 1
FAILED = "-failed"
ENDINGS = (".toml", ".safetensors", ".html")  # of its files, and of its page
AGAIN = "name an intact calibration, or calibrate again: hil calibrate BENCH.toml"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Instrument:
    """Who answered."""

    maker: str
    model: str
    serial: str
    firmware: str

    def __str__(self) -> str:
        return f"{self.maker} {self.model} SN {self.serial} fw {self.firmware}"


@dataclass(frozen=True, slots=True)
class Model:
    """A twin as a file names it: the class, and the settings that make it."""

    use: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A calibration, whole.

    Args:
        bench, shape: of the bench file. taken_at: ISO 8601 with zone. provenance: who was measured. seed: of the drives.
        versions: of hil and torch. instruments: by their names in the bench file.
        settings: by table, those of the bench file that change what is measured; TOML values.
        steps: as they were done. belief: the twin before. twin: the fitted one; None where none was fitted.
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
    belief: Model | None = None
    twin: Model | None = None

    @property
    def good(self) -> bool:
        """Something was measured, and every step of it is."""
        return bool(self.steps) and bool(self.instruments) and all(step.good for step in self.steps)

    @property
    def name(self) -> str:
        """Of its files, without an ending."""
        return f"{slug(self.bench, 'bench')}-{self.taken:%Y%m%d-%H%M%S}{'' if self.good else FAILED}"

    @property
    def taken(self) -> datetime:
        return datetime.fromisoformat(self.taken_at)

    def step(self, name: str) -> Step | None:
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
        """As the file has it."""
        table: dict[str, Any] = {
            "format": FORMAT, "bench": self.bench, "shape": self.shape, "good": self.good, "taken_at": self.taken_at,
            "provenance": self.provenance, "seed": self.seed, "versions": dict(self.versions),
            "instruments": {name: asdict(who) for name, who in self.instruments.items()},
            "settings": {name: dict(rows) for name, rows in self.settings.items()},
        }  # fmt: skip
        for name, model in (("belief", self.belief), ("twin", self.twin)):
            if model is not None:
                table[name] = {"use": model.use, "settings": dict(model.settings)}
        table |= {"raw": dict(raw), "step": [_step_table(step) for step in self.steps]}
        return {**table, "sha256": digest(table)}

    @classmethod
    def load(cls, path: Path, sweeps: bool = True) -> Certificate:
        """Read a calibration, good or not.

        Args:
            sweeps: read the sweeps too; without them every step's `raw` is empty.
        Raises:
            ConfigError: missing, torn, changed, of another format, or without its sweeps.
        """
        read = _Reader(str(path))
        table = _parsed(path)
        if table.get("format") != FORMAT:
            raise _damaged(str(path), "not a calibration of this format", repr(table.get("format")), f"format = {FORMAT}")
        told = read.take(table, "sha256", str)
        if digest({key: value for key, value in table.items() if key != "sha256"}) != told:
            raise _damaged(str(path), "it was changed after it was written", "another sha256", "the file that hil wrote")
        raw = _sweeps(path, read.table(table, "raw"), read) if sweeps else {}
        made = cls(
            bench=read.take(table, "bench", str),
            shape=read.take(table, "shape", str),
            taken_at=read.time(table, "taken_at"),
            provenance=read.provenance(table),
            seed=read.take(table, "seed", int),
            versions=read.texts(table, "versions"),
            instruments={name: read.instrument(who, name) for name, who in read.table(table, "instruments").items()},
            settings={name: read.table(read.table(table, "settings"), name) for name in read.table(table, "settings")},
            steps=tuple(read.step(part, raw) for part in read.take(table, "step", list)),
            belief=read.model(table, "belief"),
            twin=read.model(table, "twin"),
        )
        if made.good != read.take(table, "good", bool):
            raise _damaged(str(path), "good does not follow from its steps", f"good = {table['good']}", f"{made.good}".lower())
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


def _sweeps(path: Path, raw: Mapping[str, Any], read: _Reader) -> dict[str, Tensor]:
    file = path.with_name(Path(read.take(raw, "file", str)).name)
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


@dataclass(frozen=True)
class _Reader:
    """Takes a parsed file apart; whatever is not as it must be is a ConfigError that names the place."""

    path: str
    place: str = field(default="")

    def take(self, table: Mapping[str, Any], key: str, kind: type[T]) -> T:
        value = table.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            got = f"no {key}" if value is None else f"{key} = {value!r}"[:80]
            raise _damaged(f"{self.path}{self.place}", f"{key} is wrong or missing", got, f"a {kind.__name__}")
        return value

    def number(self, table: Mapping[str, Any], key: str) -> float:
        value = table.get(key)
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        except OverflowError:
            value = "a number of too many digits"
        raise _damaged(f"{self.path}{self.place}", f"{key} is wrong or missing", repr(value)[:80], "a number")

    def table(self, table: Mapping[str, Any], key: str) -> dict[str, Any]:
        return self.take(table, key, dict)

    def texts(self, table: Mapping[str, Any], key: str) -> dict[str, str]:
        part = self.table(table, key)
        return {name: self.at(key).take(part, name, str) for name in part}

    def at(self, place: str) -> _Reader:
        return _Reader(self.path, f": [{place}]")

    def time(self, table: Mapping[str, Any], key: str) -> str:
        text = self.take(table, key, str)
        try:
            zoned = datetime.fromisoformat(text).tzinfo is not None
        except ValueError:
            zoned = False
        if not zoned:
            raise _damaged(self.path, f"{key} is not a time", repr(text), "ISO 8601 with zone: 2026-11-22T01:45:12+00:00")
        return text

    def provenance(self, table: Mapping[str, Any]) -> Provenance:
        found = self.take(table, "provenance", str)
        for known in get_args(Provenance):
            if found == known:
                return known  # type: ignore[no-any-return]
        raise _damaged(self.path, "unknown provenance", repr(found), ", ".join(get_args(Provenance)))

    def instrument(self, who: object, name: str) -> Instrument:
        at = self.at(f"instruments.{name}")
        if not isinstance(who, dict):
            raise _damaged(f"{at.path}{at.place}", "not an instrument", repr(who)[:80], "maker, model, serial, firmware")
        return Instrument(*(at.take(who, key, str) for key in ("maker", "model", "serial", "firmware")))

    def model(self, table: Mapping[str, Any], key: str) -> Model | None:
        if key not in table:
            return None
        part = self.table(table, key)
        return Model(self.at(key).take(part, "use", str), self.at(key).table(part, "settings"))

    def step(self, part: object, raw: Mapping[str, Tensor]) -> Step:
        if not isinstance(part, dict):
            raise _damaged(self.path, "a [[step]] is no table", repr(part)[:80], "the file that hil wrote")
        name = self.take(part, "name", str)
        at = self.at(f"step {name}")
        names = [str(each) for each in at.take(part, "raw", list)]
        missing = [each for each in names if raw and f"{name}/{each}" not in raw]
        if missing:
            raise _damaged(
                f"{self.path}{at.place}", "a sweep is missing", f"no {', '.join(missing)}", "the sweeps of each step"
            )
        estimates, figures = at.table(part, "estimates"), at.table(part, "figures")
        rms = at.number(part, "residual_rms") if "residual_rms" in part else None
        return Step(
            name, at.take(part, "said", str),
            {each: at.estimate(at.table(estimates, each)) for each in estimates},
            tuple(bool(channel) for channel in at.take(part, "success", list)),
            tuple(at.problem(each) for each in at.take(part, "problem", list)),
            rms, str(part.get("residual_unit", "1")),
            {each: at.number(figures, each) for each in figures},
            {each: raw[f"{name}/{each}"] for each in names} if raw else {},
            at.number(part, "took_s"),
        )  # fmt: skip

    def estimate(self, table: Mapping[str, Any]) -> Estimate:
        value, sigma = self.number(table, "value"), self.number(table, "sigma")
        try:
            return Estimate(value, sigma, self.take(table, "unit", str))
        except ContractError as error:
            raise _damaged(f"{self.path}{self.place}", error.what, error.got, "a finite value, a sigma of 0 or more") from error

    def problem(self, table: object) -> Problem:
        if not isinstance(table, dict):
            raise _damaged(f"{self.path}{self.place}", "a problem is no table", repr(table)[:80], "kind, what, evidence, todo")
        return Problem(*(self.take(table, key, str) for key in ("kind", "what", "evidence", "todo")))


def _damaged(where: str, what: str, got: str, allowed: str = "", todo: str = AGAIN) -> ConfigError:
    return ConfigError(what, where=where, got=got, allowed=allowed, outputs=UNTOUCHED, todo=todo)
