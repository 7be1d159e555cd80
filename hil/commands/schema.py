"""JSON schemas of the files, made from the models that read them, so that an editor completes and underlines.

    #:schema schemas/experiment.schema.json        first line of a file: Taplo, and Even Better TOML, look there

A bench file has the schema of its shape; one with a shape of your own has bench.schema.json, which knows only the common part.

A table whose `use` names a class is one of several: each of our names with the settings of its class and no others, and any
other "module:Class" with settings that only the class knows. hil itself checks more when it reads a file.

Sources: JSON Schema 2020-12; Taplo, "Using Schemas", "Schema directive".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from hil.commands import keys
from hil.config.bench import BenchFile
from hil.config.read import kind_of as kind_of_file
from hil.config.resolve import resolve
from hil.files import write_atomic
from hil.settings import LISTS, Setting

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path("schemas")
PATH = {"type": "string", "pattern": ":"}  # module:Class
TEXT = {"type": "string"}

Schema = dict[str, Any]


def write(kind: str | None, folder: Path) -> list[Path]:
    """Write the schema of a kind of file, or of every kind, and return the paths.

    Args:
        kind: one of hil.commands.keys.files, or None; "bench" is those of all shapes too.
        folder: new or not; files in it are replaced.
    """
    made = []
    for one in kinds():
        if kind not in (None, one.partition(".")[0]):
            continue
        made.append(folder / name(one))
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(made[-1], text(one).encode())
    return made


def kinds() -> tuple[str, ...]:
    """Return every kind of file that has a schema: those of files, and "bench.waveform" and the like."""
    return (*keys.files(), *(f"bench.{shape}" for shape in keys.shapes()))


def kind_of(table: Mapping[str, Any]) -> str:
    """The kind of a file that was read, one of `kinds`."""
    kind = kind_of_file(table) or "experiment"
    own = f"{kind}.{table.get('shape')}"
    return own if own in kinds() else kind


def name(kind: str) -> str:
    """The name of the file of a schema."""
    return f"{kind}.schema.json"


def text(kind: str) -> str:
    """The schema as it is written."""
    return json.dumps(schema(kind), ensure_ascii=False) + "\n"


def schema(kind: str) -> Schema:
    """The JSON schema of a kind of file.

    Args:
        kind: one of `kinds`.
    """
    made = _Schemas()
    file, _, shape = kind.partition(".")
    top = made.table(keys.shapes()[shape] if shape else keys.files()[file])
    if file == "bench":
        told = {"description": keys.meanings(BenchFile)["shape"]}
        top["properties"]["shape"] = {**({"const": shape} if shape else PATH), **told}
        top["additionalProperties"] = not shape
    return {"$schema": DIALECT, "title": f"hil: {kind} file", **top, "$defs": dict(sorted(made.defs.items()))}


class _Schemas:
    """Collects the tables that more than one place has, by name."""

    def __init__(self) -> None:
        self.defs: dict[str, Schema] = {}

    def table(self, *models: type[BaseModel]) -> Schema:
        """The keys that models read, but for those of a class that the table may name."""
        properties: Schema = {}
        required: list[str] = []
        more: Schema | bool = False
        for model in models:
            told = keys.meanings(model)
            for key, field in model.model_fields.items():
                made, how = keys.held(field)
                if made is model:  # the whole table may stand there several times
                    continue
                if keys.marked(field).spread:
                    more = self._of(made)
                    continue
                properties[key] = _described(self._key(field, made, how), told.get(key, ""), field.default)
                if field.is_required():
                    required.append(key)
                stem, _, unit = key.rpartition("_")
                if stem and unit == keys.marked(field).unit:
                    properties[stem] = properties[key]
        return _object(properties, required, more)

    def _key(self, field: FieldInfo, made: Any, how: str) -> Schema:
        if made is None:
            return _leaf(Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation)
        table = self._of(made, *_besides(field, made))
        if how == "named":
            return {"type": "object", "additionalProperties": table}
        if how == "list":
            return {"type": "array", "items": table}
        several = _modelled(made) and any(keys.held(inner)[0] is made for inner in made.model_fields.values())
        return {"anyOf": [table, {"type": "array", "items": table}]} if several else table

    def _of(self, made: Any, *besides: type[BaseModel]) -> Schema:
        """A reference to the table of `made`."""
        called = "_".join(f"{one.__module__}.{one.__qualname__}" for one in (made, *besides))
        if called not in self.defs:
            self.defs[called] = {}  # while it is being made
            self.defs[called] = self._choices(called, made, besides) if _modelled(made) else _object(*self.settings(made))
        return {"$ref": f"#/$defs/{called}"}

    def _choices(self, called: str, model: type[BaseModel], besides: tuple[type[BaseModel], ...]) -> Schema:
        """A table that names a class: with the settings of each that we know, or of another."""
        whole = self.table(model, *besides)
        named: Mapping[str, Mapping[str, str]] = getattr(model, "known", {})
        if not named:
            return {
                **whole,
                "additionalProperties": whole["additionalProperties"] or model.model_config.get("extra") == "allow",
            }
        self.defs[f"{called}.keys"] = {"properties": whole["properties"]}
        same = {name: {"$ref": f"#/$defs/{called}.keys/properties/{name}"} for name in whole["properties"]}
        branches = [self.table(*besides)] if besides else []
        for key, known in named.items():
            rest = {name: part for name, part in same.items() if name == key or name not in named}
            required = [name for name in whole["required"] if name not in named]
            told, default = {"description": whole["properties"][key].get("description", "")}, model.model_fields[key].default
            for short, path in known.items():
                settings, needed = self.settings(resolve(path, "schema"))
                mine = {**settings, **rest, key: {"enum": list(dict.fromkeys((short, path))), **told}}
                branches.append(_object(mine, [*([] if short == default else [key]), *required, *needed]))
            free = {**PATH, "not": {"enum": [*dict.fromkeys((*known, *known.values()))]}, **told} if known else rest[key]
            branches.append(_object({**rest, key: free}, [key, *required], bool(known)))
        return {"anyOf": branches}

    def settings(self, made: Any) -> tuple[Schema, list[str]]:
        """What a file may give a class or function; a setting whose name states its unit may be written without."""
        properties: Schema = {}
        required, told = [], keys.meanings(made)
        for key, one in keys.settings(made).items():
            value = self._of(one.kind) if is_dataclass(one.kind) else _value(one)
            properties[key] = _described(value, told.get(key, ""), one.default)
            if one.alias:
                properties[one.alias] = properties[key]
            elif one.needed:
                required.append(key)
        return properties, required


def _object(properties: Schema, required: Sequence[str], more: Schema | bool = False) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": more}


def _described(value: Schema, meaning: str, default: Any) -> Schema:
    plain = isinstance(default, bool | int | float | str) and not (isinstance(default, float) and math.isinf(default))
    return {**value, **({"description": meaning} if meaning else {}), **({"default": default} if plain else {})}


def _leaf(kind: Any) -> Schema:
    """A value that is no table. TOML has no null."""
    found = TypeAdapter[Any](kind).json_schema()
    parts = [part for part in found.pop("anyOf", ()) if part != {"type": "null"}]
    return {**found, **(parts[0] if len(parts) == 1 else {"anyOf": parts} if parts else {})}


def _value(one: Setting) -> Schema:
    """A setting: what its annotation says, or a text with its unit."""
    if one.adapter is None:  # the class itself judges
        return {}
    found = _leaf(one.kind)
    if not one.unit:
        return found
    lists = any(get_origin(option) in LISTS for option in keys.options(one.kind))
    texts: list[Schema] = [{"type": "array", "items": {"anyOf": [{"type": "number"}, TEXT]}}] if lists else []
    return {"anyOf": [found, TEXT, *texts]}


def _besides(field: FieldInfo, made: Any) -> Iterator[type[BaseModel]]:
    """The model that reads an entry of a list, where its table is that of another."""
    for option in keys.options(field.annotation):
        for part in get_args(option):
            if _modelled(part) and part is not made:
                yield part


def _modelled(made: Any) -> bool:
    return isinstance(made, type) and issubclass(made, BaseModel)
