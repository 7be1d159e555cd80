"""The space of operating points: settings of an experiment and of its bench, by "table.key".

[search.space]
device.phase = ["0.2 rad", "1.5 rad"]                      a range; both ends are in one unit
device.gain = [0.1, 1.2]
device.noise = { low = 1e-5, high = 1e-2, log = true }      equal ratios have equal shares
network.widths.1 = { low = 20, high = 200, whole = true }   whole numbers; a number in a key is a place in a list, from 0
learner.use = { choices = ["reservoir", "ridge"] }          one of several; a choice may be a list, or a whole table
bench.waveform.symbol_rate = ["50 MHz", "200 MHz"]          bench.… is a key of the bench file
seed = { low = 0, high = 999, whole = true }                of masks and noise

What a key may hold is known by who reads the file, and checked there: see hil/build/operating_point.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hil.errors import UNTOUCHED, ConfigError
from hil.search.jobs import OperatingPoint
from hil.search.space import Dimension, Genome, Shares, Value
from hil.settings import shortened
from hil.units import NUMBER

RANGE = {"low", "high", "log", "whole"}
FORMS = "[low, high], { low = …, high = …, log = true, whole = true }, or { choices = [ … ] }"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that is searched.

    Args:
        dimension: its name is the key.
        unit: that follows the number in the file; "": none.
        choices: as the file has them, in the order of those of the dimension.
    """

    dimension: Dimension
    unit: str = ""
    choices: tuple[Any, ...] = ()

    def written(self, value: Value) -> Any:
        """Return a value as a file has it."""
        if self.choices:
            return self.choices[self.dimension.choices.index(value)]
        return f"{value!r} {self.unit}" if self.unit else value


@dataclass(frozen=True, slots=True)
class OperatingSpace:
    """A Space: which settings a point stands for.

    Args:
        settings: in the order of the file.
    """

    settings: tuple[Setting, ...]

    @property
    def kind(self) -> str:
        """What is searched."""
        return "operating point"

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All of them are free."""
        return tuple(setting.dimension for setting in self.settings)

    def values(self, genome: Genome) -> dict[str, Value]:
        """Return the value of each setting, without its unit."""
        return {setting.dimension.name: value for setting, value in zip(self.settings, genome.values, strict=True)}

    def recipe(self, genome: Genome) -> OperatingPoint:
        """Return the settings as a file has them."""
        pairs = zip(self.settings, genome.values, strict=True)
        return OperatingPoint({setting.dimension.name: setting.written(value) for setting, value in pairs})

    def canonical(self, shares: Shares) -> Shares:
        """Return the same: no two points are known to mean the same training."""
        return shares


def operating_space(written: Mapping[str, Any], where: str) -> OperatingSpace:
    """Read [search.space].

    Args:
        written: as the file has it.
        where: file and table, for messages.

    Raises:
        ConfigError: a dimension that makes no sense.
    """
    found = tuple(_setting(key, value, f"{where} {key}") for key, value in _leaves(written))
    if not found:
        raise _refused("no dimension", where, "{}", "one or more: device.gain = [0.1, 1.2]")
    return OperatingSpace(found)


def _leaves(written: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in written.items():
        if isinstance(value, Mapping) and not _is_dimension(value):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _is_dimension(table: Mapping[str, Any]) -> bool:
    """True of a range or choices as a table; settings themselves may be called low and high, as the limits of a generator."""
    whole = {"low", "high"} <= set(table) <= RANGE
    return set(table) == {"choices"} or (whole and not any(isinstance(table[end], list | Mapping) for end in ("low", "high")))


def _setting(key: str, value: Any, where: str) -> Setting:
    if isinstance(value, list | tuple) and len(value) == 2:
        return _range(key, {"low": value[0], "high": value[1]}, where)
    if isinstance(value, Mapping) and set(value) == {"choices"}:
        return _choices(key, value["choices"], where)
    if isinstance(value, Mapping) and _is_dimension(value):
        return _range(key, value, where)
    raise _refused("not a dimension", where, shortened(value), FORMS)


def _choices(key: str, choices: Any, where: str) -> Setting:
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise _refused("not choices", where, shortened(choices), "a list of two or more")
    texts = [json.dumps(choice, sort_keys=True, default=str) for choice in choices]
    if len(set(texts)) < len(texts):
        raise _refused("a choice stands there twice", where, shortened(choices), "each once")
    plain = all(isinstance(choice, bool | int | float | str) for choice in choices) and len(set(choices)) == len(choices)
    return Setting(Dimension(key, choices=tuple(choices if plain else texts)), choices=tuple(choices))


def _range(key: str, table: Mapping[str, Any], where: str) -> Setting:
    (low, unit), (high, other) = (_number(table[end], f"{where} {end}") for end in ("low", "high"))
    flags = {name: table.get(name, False) for name in ("log", "whole")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise _refused(f"{name} is no truth value", where, shortened(flag), "true or false")
    if unit != other:
        raise _refused("a range in two units", where, f'"{unit}" and "{other}"', "one unit for both ends")
    if not low < high:
        raise _refused("not a range", where, f"{low!r} to {high!r}", "low below high")
    if flags["log"] and low <= 0:
        raise _refused("a logarithmic range begins above 0", where, f"low = {low!r}", "low above 0, or without log = true")
    if flags["whole"] and not (low == int(low) and high == int(high)):
        raise _refused("a range of whole numbers has whole ends", where, f"{low!r} to {high!r}", "whole numbers")
    return Setting(Dimension(key, low, high, logarithmic=flags["log"], whole=flags["whole"]), unit)


def _number(value: Any, where: str) -> tuple[float, str]:
    """The number and the unit behind it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value), ""
    found = NUMBER.match(value.strip()) if isinstance(value, str) else None
    if found is None or not math.isfinite(float(found[0].replace("\u2212", "-"))):
        raise _refused("not an end of a range", where, shortened(value), 'a number, or one with its unit: "1.2 V"; ' + FORMS)
    return float(found[0].replace("\u2212", "-")), value.strip()[found.end() :].strip()


def _refused(what: str, where: str, got: str, allowed: str) -> ConfigError:
    return ConfigError(what, where=where, got=got, allowed=allowed, outputs=UNTOUCHED, todo="correct [search.space]")
