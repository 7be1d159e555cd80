"""A TOML file becomes checked tables: an unknown key is an error that names the nearest one, every table knows its place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, PrivateAttr

from hil import toml
from hil.config.resolve import Choice, choice
from hil.errors import UNTOUCHED, ConfigError, nearest
from hil.files import read_text, there
from hil.hints import quoted
from hil.settings import shortened, unknown
from hil.units import quantities, quantity

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Holds:
    """A note in the annotation of a key, for those who read the model: what it holds, where the annotation alone does not say.

    Args:
        made: the class whose settings stand in its table.
        unit: of the quantity, or in which unit it is.
        spread: its tables stand beside the other keys, each under a name of its own, as [virtual.NAME].
    """

    made: Any = None
    unit: str = ""
    spread: bool = False


class Table(BaseModel):
    """A table of a file, which knows where it stands once the whole file was checked."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    _place: str = PrivateAttr(default="")

    @property
    def place(self) -> str:
        """File and section, for messages: "experiment.toml: [learner]"."""
        return self._place

    def settle(self, place: str) -> None:
        """Find the class that the table names; called once, with the place, when the whole file has been checked.

        Raises:
            ConfigError: there is no such class, or it does not take these settings.
        """
        self._place = place

    def changed(self, **settings: Any) -> Self:
        """The same table with other settings, checked. Raises: ConfigError."""
        made = checked(type(self), {**self.model_dump(exclude_none=True), **settings}, self.place)
        made.settle(self.place)
        return made

    def quantity(self, key: str, unit: str) -> float:
        """The value of `key` in `unit`. Raises: ConfigError: it is of another kind."""
        return quantity(getattr(self, key), "dimensionless" if unit == "1" else unit, f"{self._place} {key}")

    def quantities(self, key: str, unit: str) -> float | tuple[float, ...]:
        """The value of `key` in `unit`, or of a list each. Raises: ConfigError: one is of another kind."""
        return quantities(getattr(self, key), "dimensionless" if unit == "1" else unit, f"{self._place} {key}")


class Section(Table):
    """A table whose keys are all known; another one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Using(Table):
    """A table whose `use` names a class; the other keys are that class's settings.

    Args:
        use: what it is: a short name, or "module:Class"; other keys are its settings.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    known: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Key that names a class -> our names for it, and what each stands for; for those who read the model."""
    use: str
    _choice: Choice | None = PrivateAttr(default=None)

    def settings(self) -> dict[str, Any]:
        """Return the settings as they are written."""
        return dict(self.model_extra or {})

    @property
    def choice(self) -> Choice:
        """The class, and its settings checked."""
        assert self._choice is not None, "only a table of a file that was read knows its class"
        return self._choice

    def settle(self, place: str) -> None:
        """Find the class that `use` names and check its settings, once."""
        super().settle(place)
        self._choice = self.chosen()

    def chosen(self) -> Choice:
        """Find the class and check the settings. Raises: ConfigError."""
        return choice(self.use, self.settings(), self.place)


def read_toml(path: Path) -> dict[str, Any]:
    """Raises: ConfigError: no such file, or not TOML; the message gives the line."""
    try:
        return toml.loads(read_text(path, toml.MOST_BYTES, ConfigError))
    except ConfigError as error:
        if there(path):
            error.outputs, error.todo = UNTOUCHED, error.todo or "give the path of a TOML file that you may read"
            raise
        near = nearest(path.name, (p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else ())
        hint = f'did you mean "{path.parent / near}"?' if near else "give the path of a TOML file"
        raise ConfigError("no such file", where=str(path), outputs=UNTOUCHED, todo=hint) from error
    except ValueError as error:
        raise ConfigError(
            "not a TOML file", where=str(path), got=str(error), outputs=UNTOUCHED, todo="mend that line"
        ) from error


KINDS = {  # kind of a file -> how it is called, what it has, and what it is for
    "experiment": ("an experiment file", "[network], [device] and [learner]", "hil train"),
    "bench": ("a bench file", "name, shape and the tables of the shape", "hil doctor"),
    "search": ("a search file", "base, [search] and [genome]", "hil search"),
    "compare": ("a comparison file", "base, seeds and [[learner]]", "hil compare"),
}


def kind_of(table: Mapping[str, Any]) -> str:
    """Return which kind of file `table` was read from, by keys that no other kind has; "" if it is none."""
    if "shape" in table and "taken_at" not in table:  # a calibration has the shape of its bench
        return "bench"
    if "base" in table:
        mine = {"compare": {"seeds", "learner"}, "search": {"search", "genome"}}
        return next((kind for kind, keys in mine.items() if keys & set(table)), "")
    return "experiment" if {"network", "learner"} & set(table) else ""


def of_kind(table: Mapping[str, Any], kind: str, path: Path) -> None:
    """Refuse a file of another kind in one sentence, before its keys are called unknown.

    Args:
        table: as it was read from `path`.
        kind: one of KINDS.
        path: of the file.

    Raises:
        ConfigError: it is a file of another kind.
    """
    found = kind_of(table)
    if found not in ("", kind):
        (called, _, command), (wanted, has, _) = KINDS[found], KINDS[kind]
        bench = f'; in an experiment name it: [device] bench = "{path}"' if found == "bench" and kind == "experiment" else ""
        raise ConfigError(
            f"this is {called}, not {wanted}", where=str(path), allowed=f"{wanted}: it has {has}", outputs=UNTOUCHED,
            todo=f"use it with {command} {quoted(path)}{bench}",
        )  # fmt: skip


def dump(model: BaseModel) -> str:
    """TOML text that reads back to the same values; None is left out, as TOML has no such value."""
    return tomli_w.dumps(_without_none(model.model_dump()))


def value_text(value: object) -> str:
    """Write a value as TOML has it."""
    return tomli_w.dumps({"value": value}).partition("=")[2].strip()


def find(name: str, near: Path) -> Path:
    """A file named in an experiment: as given, or beside the experiment or one of the folders above it.

    Raises:
        ConfigError: it is in none of them.
    """
    places = [Path(name)] if Path(name).is_absolute() else [folder / name for folder in (Path.cwd(), *near.resolve().parents)]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f'file "{name}" not found', where=str(near), got=f"nothing at {places[0]}", outputs=UNTOUCHED,
        todo="give a path relative to the experiment file or to the folder you are in",
    )  # fmt: skip


def override(table: dict[str, Any], text: str) -> None:
    """Set `section.key=value` in `table`; a value that is not TOML is a string.

    Raises:
        ConfigError: it is not of that form.
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > toml.MOST_PARTS:
        raise ConfigError(
            "not an override", where=f"--set {shortened(text)}", allowed="section.key=value", outputs=UNTOUCHED,
            todo="write it so, without spaces, or in quotes: --set train.epochs=3",
        )  # fmt: skip
    try:
        read = toml.loads(f"value = {value}")
        # a bare word is a string, --set learner.use=dfa; so is what TOML would read in part only: "3 # 5", two lines
        parsed = read["value"] if len(read) == 1 and ("#" not in value or not _scalar(read["value"])) else value.strip()
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    except ValueError as error:
        raise ConfigError(
            "not a value", where=f"--set {shortened(text)}", got=str(error), allowed="section.key=value", outputs=UNTOUCHED,
            todo="write a shorter one",
        ) from error  # fmt: skip
    put(table, keys, parsed, f"--set {text}")


def put(table: Any, keys: Sequence[str], value: object, where: str) -> None:
    """Set the key that `keys` lead to from `table`; a number among them is a place in a list, counted from 0.

    Raises:
        ConfigError: one of them leads nowhere.
    """
    for number, key in enumerate(keys):
        if isinstance(table, list) and (not key.isdecimal() or int(key) >= len(table)):
            raise ConfigError(
                f"{key} is no place in a list of {len(table)}", where=where, allowed=f"0 to {len(table) - 1}",
                outputs=UNTOUCHED, todo="write a place that is there",
            )  # fmt: skip
        at: Any = int(key) if isinstance(table, list) else key
        if number == len(keys) - 1:
            table[at] = value
            return
        table = table[at] if isinstance(table, list) else table.setdefault(at, {})
        if not isinstance(table, dict | list):
            raise ConfigError(
                f"{key} is a value, not a section", where=where, allowed="section.key=value", outputs=UNTOUCHED,
                todo=f"write {key}=value",
            )  # fmt: skip


def checked(model: type[M], table: Mapping[str, Any], where: str) -> M:
    """Return `table` as a `model`.

    Raises:
        ConfigError: the first unknown key with the nearest known one, or the first wrong value.
    """
    try:
        found = model.model_validate(table)
    except pydantic.ValidationError as error:
        faults = error.errors(include_url=False)
        first = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])  # a misspelt key explains a missing one
        alike = [fault for fault in faults if _path(table, fault) == _path(table, first)]  # one for each kind that it may have
        raise _explained(model, alike, table, where, len({_path(table, fault) for fault in faults})) from None
    for path, part in _tables(found):
        part.settle(f"{where}: [{path}]" if path else where)
    return found


def _tables(value: object, path: str = "") -> Iterator[tuple[str, Table]]:
    """Every table of a file with the name of its section, the whole file first."""
    if isinstance(value, Table):
        yield path, value
        for name in type(value).model_fields:
            yield from _tables(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _tables(part, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tables(part, path)


def _path(table: object, fault: Any) -> tuple[str, ...]:
    """The keys that lead to what is wrong: pydantic names among them the kinds that a value may have."""
    path = []
    for part in fault["loc"]:
        there = part in table if isinstance(table, Mapping) else isinstance(table, list | tuple) and isinstance(part, int)
        if there:
            table = table[part]  # type: ignore[index]
        elif fault["type"] != "missing":
            continue
        path.append(str(part))
    return tuple(path)


def _explained(model: type[BaseModel], faults: Sequence[Any], table: object, where: str, count: int) -> ConfigError:
    """Explain the faults of one key, of so many keys that have any."""
    fault, path = faults[0], _path(table, faults[0])
    kinds = ["a section with keys of its own" if f["type"] in ("model_type", "dict_type") else _told(f["msg"]) for f in faults]
    allowed = ", or ".join(dict.fromkeys(kinds))
    section = f"{where}: [{'.'.join(path[:-1])}]" if len(path) > 1 else where
    if fault["type"] == "extra_forbidden":
        return unknown(section, path[-1], fault["input"], _fields(model, path[:-1]))
    more = f" ({count - 1} more after this one)" if count > 1 else ""
    if fault["type"] == "missing":
        return ConfigError(
            f"{path[-1]} is missing{more}", where=section, outputs=UNTOUCHED, todo=f"add {path[-1]} to the file",
        )  # fmt: skip
    return ConfigError(
        f"{path[-1]} = {shortened(fault['input'])}: wrong value{more}", where=section, allowed=allowed,
        outputs=UNTOUCHED, todo="correct the value",
    )  # fmt: skip


def _told(message: str) -> str:
    return message.removeprefix("Input should be ").partition(", unable to")[0]


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys allowed in the section `path` of `model`."""
    for part in path:
        if part.isdecimal():  # a place in a list of tables
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list | tuple) else value


def _scalar(value: object) -> bool:
    """A value of TOML whose text has no quotes that could hold a #."""
    return not isinstance(value, str | list | dict)
