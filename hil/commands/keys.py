"""The contents of each kind of file: its tables, their keys, kinds, defaults and meanings, read off the models.

`hil describe`, `hil schema` and docs/reference/keys.md are made of this, so that nothing is written twice. A meaning is what
the docstring of the class says of the argument.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hil.config.bench import GIVEN, BenchFile
from hil.config.experiment import Experiment
from hil.config.read import Holds
from hil.config.resolve import SHAPES, resolve
from hil.config.search import SearchFile
from hil.settings import Setting, in_words, parameters
from hil.units import symbol

REQUIRED, NONE, DEFAULTS = "required", "none", "its defaults"
TOP = "At the top"
ARGS = re.compile(r"^Args:\n((?: +\S.*\n?|\n(?= ))+)", re.M)
ARGUMENT = re.compile(r"^ {4}(\w+(?:, \w+)*)(?: \(.*?\))?: ?(.*(?:\n {5,}.*)*)", re.M)  # with a kind in brackets, or without
ROLES = {*GIVEN, "session", "clock", "lock", "control_port"}  # given by hil, never by a file


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table.

    Args:
        name: as a file has it; a quantity may be written without the unit that ends the name.
        kind: of its value, in words.
        default: as TOML, or REQUIRED, NONE or DEFAULTS.
        meaning: in words.
    """

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a file.

    Args:
        head: "[train]".
        made: the class that its settings are of.
        says: what it is.
        keys: in order.
    """

    head: str
    made: Any
    says: str
    keys: tuple[Key, ...]


def files() -> Mapping[str, type[BaseModel]]:
    """Kind of a file -> its model; of a bench file the part that all shapes have."""
    from hil.commands.compare import Comparison

    return {"experiment": Experiment, "bench": BenchFile, "search": SearchFile, "compare": Comparison}


def shapes() -> Mapping[str, type[BaseModel]]:
    """Name of a shape of ours -> the model of its bench file."""
    return {name: resolve(path, "shapes").Bench for name, path in SHAPES.items()}


def tables(kind: str) -> Iterator[Table]:
    """Return every table of a kind of file; of a bench those of each shape after those of all.

    Args:
        kind: one of `files`.
    """
    model = files()[kind]
    yield from _tables(model, TOP)
    if kind != "bench":
        return
    told: dict[type[BaseModel], str] = {}
    for shape, own in shapes().items():
        told[own] = f"{told[own]}, {shape}" if own in told else shape
    for own, names in told.items():
        for name in own.model_fields:
            if name not in model.model_fields or own.model_fields[name].annotation != model.model_fields[name].annotation:
                for table in _below(name, own.model_fields[name], f"[{name}]", (own,)):
                    yield dataclasses.replace(table, head=f"{table.head} of {names}")


def table(head: str, made: Any) -> Table:
    """The table of a class of settings, under a head."""
    return Table(head, made, says(made), tuple(keys(made)))


def keys(made: Any) -> Iterator[Key]:
    """The keys of a pydantic model, or of a class or function with settings; tables of their own are named by their heads."""
    told = meanings(made)
    if isinstance(made, type) and issubclass(made, BaseModel):
        for name, field in made.model_fields.items():
            if not marked(field).spread:
                yield Key(field.alias or name, _kind(field), _default(field), told.get(name, ""))
        return
    for name, one in settings(made).items():
        kind = f"quantity, {symbol(one.unit)}" if one.unit and symbol(one.unit) else plainly(one.kind)
        if one.unit and any(get_origin(part) is tuple for part in options(one.kind)):
            kind += ", or a list of them"
        yield Key(name, kind, written(_of(made, one)), told.get(name, ""))


def settings(made: Any) -> Mapping[str, Setting]:
    """Return what a file may give a class or function; {} of a class in C that does not say."""
    made = getattr(made, "Settings", made)
    try:
        found = parameters(made)
    except (TypeError, ValueError):
        return {}
    return {name: one for name, one in found.items() if name not in ROLES}


@cache
def meanings(made: Any) -> Mapping[str, str]:
    """Return what the docstrings of a class and its bases say of its arguments, by name."""
    made = getattr(made, "Settings", made)
    found: dict[str, str] = {}
    for one in reversed(getattr(made, "__mro__", (made,))):
        text = one.__doc__ if isinstance(one, type) else inspect.getdoc(one)
        if one in (object, BaseModel) or not text:
            continue
        section = ARGS.search(inspect.cleandoc(text))
        for names, meaning in ARGUMENT.findall(section[1]) if section else ():
            found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()).rstrip("."))
    return found


def says(made: Any) -> str:
    """The first paragraph of the docstring, without the name of the table."""
    text = " ".join((inspect.getdoc(made) or "").split("\n\n")[0].split())
    return re.sub(r"^\[.+?\](?: of a \w+ file)?: (.)", lambda found: found[1].upper(), text)


def held(field: FieldInfo) -> tuple[Any, str]:
    """The class of the table that a field holds, and how: "one", "list", "named", or "" where it holds none."""
    mark = marked(field)
    if mark.made is not None:
        return mark.made, "list" if any(get_origin(o) is tuple for o in options(field.annotation)) else "one"
    for option in options(field.annotation):
        origin, args = get_origin(option), get_args(option)
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option, "one"
        part = args[-1 if origin is dict else 0] if origin in (dict, list, tuple) and args else None
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part, "named" if origin is dict else "list"
    return None, ""


def options(kind: Any) -> list[Any]:
    """The parts of a union, without None."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [part for part in parts if part is not NoneType]


def written(value: object) -> str:
    """A default as TOML has it."""
    if value is inspect.Parameter.empty:
        return REQUIRED
    if value is None:
        return NONE
    if isinstance(value, list | tuple) and None in value:
        return DEFAULTS
    if isinstance(value, list | tuple) and not all(isinstance(part, bool | int | float | str) for part in value):
        return f"{len(value)} table" + "s" * (len(value) != 1)
    if isinstance(value, float) and abs(value) >= 1e5:
        return f"{value:g}"
    if isinstance(value, list | tuple | bool | int | float | str):
        return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    if isinstance(value, Mapping) and value:
        return "{ " + ", ".join(f"{key} = {written(part)}" for key, part in value.items()) + " }"
    return DEFAULTS


def plainly(kind: Any) -> str:
    """An annotation in words, without the names that Python has for them."""
    return "table" if is_dataclass(kind) else re.sub(r" \((?:float|bool)\)", "", in_words(kind))


def marked(field: FieldInfo) -> Holds:
    """The note in the annotation of a key, or an empty one."""
    return next((one for one in field.metadata if isinstance(one, Holds)), Holds())


def _tables(model: type[BaseModel], head: str, above: tuple[Any, ...] = ()) -> Iterator[Table]:
    yield table(head, model)
    for name, field in model.model_fields.items():
        inner = f"{head[:-1]}.{name}]" if head.startswith("[") else f"[{name}]"
        yield from _below(name, field, inner, (*above, model))


def _below(name: str, field: FieldInfo, head: str, above: tuple[Any, ...]) -> Iterator[Table]:
    made, how = held(field)
    if made is None or made in above:
        return
    outer = head.rpartition(f".{name}]")[0]
    if how == "list":
        head = f"[{head}]"
    elif how == "named":
        head = f"{outer}.NAME]" if marked(field).spread else f"{head[:-1]}.NAME]"
    if isinstance(made, type) and issubclass(made, BaseModel):
        yield from _tables(made, head, above)
        return
    yield table(head, made)
    for part, one in settings(made).items():
        if is_dataclass(one.kind):
            yield table(f"{head[:-1]}.{part}]", one.kind)


def _of(made: Any, one: Setting) -> Any:
    """The default of a setting, made where it is made anew each time."""
    made = getattr(made, "Settings", made)
    for field in dataclasses.fields(made) if is_dataclass(made) else ():
        if field.name == one.name and field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
    return one.default


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    if field.default is not PydanticUndefined:
        return written(field.default)
    return written(field.default_factory())  # type: ignore[misc,call-arg]


def _kind(field: FieldInfo) -> str:
    made, how = held(field)
    mark = marked(field)
    if made is not None:
        return {"one": "table", "list": "list of tables", "named": "a table for each NAME"}[how]
    if mark.unit:
        many = any(get_origin(option) is list for option in options(field.annotation))
        return f"quantity, {mark.unit}" + (", or a list of them" if many else "")
    if get_origin(field.annotation) is Literal:
        return ", ".join(written(value) for value in get_args(field.annotation))
    bounds = tuple(one for one in field.metadata if not hasattr(one, "min_length") and not isinstance(one, Holds))
    return plainly(Annotated[(field.annotation, *bounds)] if bounds else field.annotation)
