"""Text such as "10 mV" becomes an SI float here, at the edge, and nowhere else."""

from __future__ import annotations

from functools import cache
from typing import Any

from hil.errors import ConfigError

SUFFIXES = {
    "v": "volt", "s": "second", "hz": "hertz", "w": "watt", "a": "ampere", "ohm": "ohm", "rad": "radian", "k": "kelvin",
    "rad_per_s": "radian / second", "rad_per_rts": "radian / second ** 0.5", "a_per_w": "ampere / watt",
    "a_per_rthz": "ampere / hertz ** 0.5", "v_per_s": "volt / second",
}  # fmt: skip


def quantity(value: object, unit: str, where: str) -> float:
    """`value` in `unit`: a number is taken as SI, text is parsed ("3.5 V", "12 ns").

    Raises:
        ConfigError: not a number, not a unit, or a unit of another kind.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError("not a quantity", where=where, got=repr(value), allowed=f'a number, or text such as "1.5 {unit}"')
    if isinstance(value, int | float):
        return float(value)
    import pint  # slow to import, and only texts with units need it

    try:
        return float(_registry()(value).to(unit).magnitude)
    except (pint.PintError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            "not a quantity of this kind", where=where, got=repr(value), allowed=f"{unit}, for example 1.5 with its unit",
            outputs="untouched; nothing was opened",
        ) from error  # fmt: skip


@cache
def _registry() -> Any:
    """The units that there are; made once a process, as it takes a third of a second."""
    import pint

    return pint.UnitRegistry(cache_folder=None)


def suffix_of(parameter: str, stem: str) -> str | None:
    """The unit that a parameter's name states: ("v_pi_v", "v_pi") -> "volt"; None if it states none of ours."""
    return SUFFIXES.get(parameter[len(stem) + 1 :]) if parameter.startswith(stem + "_") else None
