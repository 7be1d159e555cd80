"""TOML text in, a table out, in bounded time and memory.

A key of n parts, ``a.b.c = 1``, costs a TOML reader n^2 steps and n^2 / 2 references: a damaged file of 40 kB would take
minutes and gigabytes. Nobody needs keys of more than MOST_PARTS.

Source: TOML 1.0.0, "Keys"; tomllib of Python 3.11, `key_value_rule` and `Flags`.
"""

from __future__ import annotations

import tomllib
from typing import Any

MOST_PARTS = 64
MOST_BYTES = 1 << 24  # of a file; a calibration with a network on top of its twin has some 100 kB


def loads(text: str) -> dict[str, Any]:
    """Raises: ValueError: not TOML (tomllib.TOMLDecodeError), or a key of too many parts, or nested without end."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= MOST_PARTS and any(key.count(".") >= MOST_PARTS for key in _keys(line)):
            raise ValueError(f"a key of more than {MOST_PARTS} parts (at line {number})")
    try:
        return tomllib.loads(text)
    except (RecursionError, MemoryError) as error:
        raise ValueError("nested without end") from error


def _keys(line: str) -> list[str]:
    """Return what may be keys in a line: before each "=", and in the brackets of a table."""
    if line.lstrip().startswith("#"):
        return []
    *before, last = line.split("=")
    keys = [part[max(part.rfind("{"), part.rfind(",")) + 1 :] for part in before]
    return [*keys, *([last] if last.lstrip().startswith("[") and "," not in last else [])]
