"""From names in a file to objects: an import path to what it names, a table to the keyword arguments of that.

use = "module:Class"         an import path, or one of our short names
v_pi = "3.5 V"               the parameter v_pi_v, its unit stated by its name
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hil.errors import ConfigError, ForeignError
from hil.foreign import foreign, said
from hil.units import quantity, suffix_of

UNTOUCHED = "untouched; nothing was opened"


def resolve(use: str, where: str, short: Mapping[str, str] = {}) -> Any:
    """The object that `use` names: "module:Class", or one of our short names.

    Raises:
        ConfigError: no such module or name; the nearest short name is offered.
    """
    path = short.get(use, use)
    module, colon, name = path.partition(":")
    if not colon:
        hint = nearest(use, short)
        raise ConfigError(
            f'"{use}" is not known', where=where, allowed=", ".join(short) + " or module:Class", outputs=UNTOUCHED,
            todo=f'did you mean "{hint}"?' if hint else "choose one of these",
        )  # fmt: skip
    try:
        with foreign(where):  # a foreign module may fail in any way while it is imported
            return getattr(importlib.import_module(module), name)
    except ForeignError as mapped:
        error = mapped.__cause__
        raise ConfigError(
            f'cannot import "{path}"', where=where, got=f"{type(error).__name__}: {said(error)}", at=mapped.at,
            allowed="module:Class, importable from here", outputs=UNTOUCHED,
            todo="check the spelling, that the package is installed, and that the module can be imported by itself",
        ) from error  # fmt: skip


def construct(target: Callable[..., Any], settings: Mapping[str, Any], where: str) -> Any:
    """`target(**settings)`, for a target and settings that come from a file.

    Raises:
        ConfigError: it refuses them in words of its own. Refused: it refuses them in ours.
    """
    try:
        with foreign(where):
            return target(**settings)
    except ForeignError as mapped:
        error = mapped.__cause__
        given = ", ".join(f"{key} = {shortened(value)}" for key, value in settings.items() if key != "params") or "no settings"
        raise ConfigError(
            "these settings are refused", where=where, got=f"{given}: {mapped.got or type(error).__name__}", at=mapped.at,
            outputs=UNTOUCHED, todo="correct the settings of this section",
        ) from error  # fmt: skip


def arguments(target: Any, table: Mapping[str, Any], where: str, skip: Sequence[str] = ()) -> dict[str, Any]:
    """`table` as keyword arguments of `target`: names checked, texts with units parsed by the unit in the parameter's name.

    A parameter `v_pi_v` may be written `v_pi = "3.5 V"` or `v_pi_v = 3.5`.

    Raises:
        ConfigError: an unknown key (the nearest is named), a value of the wrong kind, or a missing one.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{said(target)} takes no settings", where=where, allowed="a class, or a function", outputs=UNTOUCHED,
            todo="name another module:Class",
        ) from error  # fmt: skip
    known = {n: p for n, p in parameters.items() if n not in skip and n != "self"}
    found: dict[str, Any] = {}
    for key, value in table.items():
        place = f"{where} {key}"
        if key in known:
            unit = next((u for i in range(1, len(key)) if key[i] == "_" and (u := suffix_of(key, key[:i]))), None)
            found[key] = quantity(value, unit, place) if unit and isinstance(value, str) else value
            _of_its_kind(found[key], known[key].annotation, place)
            continue
        full = next((name for name in known if suffix_of(name, key)), None)
        if full is None:
            raise unknown(place.rsplit(" ", 1)[0], key, value, [*known, *(n.rsplit("_", 1)[0] for n in known)])
        found[full] = quantity(value, suffix_of(full, key) or "", place)
    missing = [n for n, p in known.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY and n not in found]
    if missing:
        raise ConfigError(
            "settings are missing", where=where, got="no " + ", ".join(missing), outputs=UNTOUCHED, todo="add them"
        )
    return found


KINDS: Mapping[str, tuple[type, ...]] = {"float": (float, int), "int": (int,), "bool": (bool,), "str": (str,)}


def _of_its_kind(value: object, annotation: object, place: str) -> None:
    """Refuse NaN, and a value that a parameter annotated with plain kinds ("float", "int | None") does not take."""
    written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    kinds = [kind for part in written.split("|") if (kind := part.strip()) != "None"]
    plain = bool(kinds) and all(kind in KINDS for kind in kinds)
    fits = (
        any(isinstance(value, KINDS[kind]) and (kind == "bool" or not isinstance(value, bool)) for kind in kinds)
        if plain
        else True
    )
    if not fits or (isinstance(value, float) and math.isnan(value)):
        raise ConfigError(
            "a value of the wrong kind", where=place, got=shortened(value), allowed=" or ".join(kinds) + ", never NaN",
            outputs=UNTOUCHED, todo="correct the value",
        )  # fmt: skip


def nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The known name closest to `name`, or ""."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, 0.5)), "")


def unknown(where: str, key: str, value: object, known: Sequence[str]) -> ConfigError:
    """The error for a key that is not one of `known`; the nearest of them is offered."""
    hint = nearest(key, known)
    return ConfigError(
        f"{key} = {shortened(value)}: unknown key" + (f'. Did you mean "{hint}"?' if hint else ""),
        where=where, allowed=", ".join(dict.fromkeys(known)), outputs=UNTOUCHED, todo="correct or remove the key",
    )  # fmt: skip


def shortened(value: object) -> str:
    """As a message has room for."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def keeps(found: object, parts: tuple[str, ...], kind: str, use: str, where: str) -> None:
    """Refuse what a file names and is not what the section needs."""
    missing = [part for part in parts if getattr(found, part, None) is None]
    if missing:
        raise ConfigError(
            f'"{use}" is not {kind}', where=where, got="no " + ", ".join(missing), allowed=f"{kind}: {', '.join(parts)}",
            outputs=UNTOUCHED, todo="name another module:Class, or give it what is missing (hil/conformance.py checks it)",
        )  # fmt: skip
