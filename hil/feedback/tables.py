"""Frozen dataclasses as plain tables, and plain tables as TOML: strings, numbers, lists and tables in tables.

    {"scale": [0.1, 0.2], "g": {"family": "sine"}}      <->      Feedback(Sine(), scale=(0.1, 0.2))

What a field takes is read off its annotation: "float", "int", "str", a tuple of one of these, each or None.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hil.errors import ConfigError, nearest


def settings_of(kind: type, table: Mapping[str, object], where: str, besides: Sequence[str] = ()) -> dict[str, Any]:
    """`table` as keyword arguments of the dataclass `kind`. besides: keys that are known and read elsewhere.

    Raises:
        ConfigError: unknown key (the nearest is named), or a value of the wrong kind.
    """
    kinds = {f.name: str(f.type) for f in fields(kind)}
    for key in table:
        if key not in kinds:
            raise unknown("key", key, (*kinds, *besides), where)
    return {key: value_of(kinds[key], value, f"{where} {key}") for key, value in table.items()}


def value_of(kind: str, value: object, where: str) -> Any:
    """`value` as the annotation `kind` wants it: numbers to float, lists to tuples.

    Raises:
        ConfigError: it is of another kind.
    """
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if "float" in kind and (whole or isinstance(value, float)):
        return float(value)  # type: ignore[arg-type]
    if "int" in kind and whole:
        return value
    if kind.split("|")[0].strip() in ("str", "Distribution") and isinstance(value, str):
        return value
    if "tuple" in kind and isinstance(value, list | tuple):
        item = next(name for name in ("float", "int", "Distribution") if f"tuple[{name}" in kind)
        return tuple(value_of(item, each, where) for each in value)
    huge = isinstance(value, int) and abs(value) > sys.float_info.max  # Python does not print it without end
    got = "a whole number of too many digits" if huge else repr(value)
    raise ConfigError("a value of the wrong kind", where=where, got=got, allowed=kind.replace("tuple", "list"))


def plain(value: object) -> object:
    """Tuples as lists; everything else as it is."""
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def toml(value: object) -> str:
    """A value as TOML; a mapping as an inline table, without its None."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {toml(item)}" for key, item in value.items() if item is not None)
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return repr(value)


def lines(table: Mapping[str, object]) -> list[str]:
    """A line a key, without None."""
    return [f"{_key(key)} = {toml(value)}" for key, value in table.items() if value is not None]


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else json.dumps(key, ensure_ascii=False)


def unknown(what: str, got: str, known: Sequence[str] | Mapping[str, object], where: str) -> ConfigError:
    """An error that names the nearest known name."""
    hint = nearest(got, known)
    todo = f"did you mean {hint}?" if hint else "choose one of these"
    return ConfigError(f"unknown {what}", where=where, got=got, allowed=", ".join(known), todo=todo)
