"""Plain tables as TOML: strings, numbers, lists and tables in tables.

{"scale": [0.1, 0.2], "g": {"family": "sine"}}      ->      scale = [0.1, 0.2], g = { family = "sine" }
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


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
