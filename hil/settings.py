"""Checker of all settings: what a file, or a caller in Python, gives for the parameters of a class or function.

    v_pi = "3.5 V"      the parameter v_pi_v, its unit stated by its name; or v_pi_v = 3.5             (hil/units.py)
    low = ["-1 V", …]   the parameter low_v: float | tuple[float, ...], each of them with its unit
    float, int, bool, str          strictly: "3" and true are no numbers, 3.0 is no whole number; NaN is no number
    Unbounded                      a float that may be infinite; so may one whose default is
    Count, Annotated[int, Field(ge=1)]     a range stands in the annotation
    Literal["a", "b"], a | b, tuple, list, Sequence, Mapping, dict of these; a TOML list is a tuple where a tuple is asked for

An annotation that is made of anything else is left to the class. A frozen dataclass checks itself, whoever makes it:

    def __post_init__(self) -> None:
        check(self, "[learner]")

Rules that relate two fields follow there.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
from pydantic import Field, TypeAdapter

from hil.errors import UNTOUCHED, ConfigError, nearest
from hil.foreign import said
from hil.units import UNBOUNDED, quantities, quantity, suffix_of

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
"""0 up to, not 1."""

WORDS = {
    bool: ("true or false (bool)", "true or false (bool)"), int: ("whole number", "whole numbers"),
    float: ("number (float)", "numbers (float)"), str: ("text", "texts"), inspect.Parameter.empty: ("anything", "anything"),
}  # fmt: skip
SCALARS = (bool, int, float, str)
LISTS = (tuple, list, Sequence)
TABLES = (dict, Mapping)


@dataclass(frozen=True)
class Setting:
    """A setting that a class takes under one name.

    Args:
        kind: the annotation, resolved.
        default: inspect.Parameter.empty if there is none.
        needed: a file must give it.
        unit, alias: that its name states, and the name without it; None and "".
        unbounded: it may be infinite, in words too.
        adapter: None where the class itself has to judge.
    """

    name: str
    alias: str
    kind: Any
    default: Any
    needed: bool
    unit: str | None
    unbounded: bool
    adapter: TypeAdapter[Any] | None

    @property
    def allowed(self) -> str:
        """Say in words what is allowed."""
        return in_words(self.kind)

    def checked(self, value: object, place: str, finite: bool = True) -> Any:
        """`value` as the class wants it: texts with units as SI numbers, lists as tuples.

        Raises:
            ConfigError: it is of another kind, out of its range, or not finite.
        """
        if self.unit and isinstance(value, str) and _options(self.kind) != [str]:
            value = quantity(value, self.unit, place, self.unbounded)
        elif self.unit and _numbers(self.kind) and isinstance(value, list | tuple) and any(isinstance(v, str) for v in value):
            value = quantities(value, self.unit, place, self.unbounded)
        infinite = self.unbounded or (isinstance(self.default, float) and math.isinf(self.default))
        if finite and not _finite(value, infinite):
            more = ", never NaN" if infinite else ", never NaN or infinite"
            raise self._refused("a value of the wrong kind", value, place, more)
        if self.adapter is None:
            return value
        try:
            return self.adapter.validate_python(value)
        except pydantic.ValidationError as error:
            types = {fault["type"] for fault in error.errors(include_url=False, include_context=False, include_input=False)}
        if types == {"literal_error"}:
            raise self._refused(f"no such {self.name}", value, place)
        wrong = all(each.endswith("_type") for each in types)
        raise self._refused("a value of the wrong kind" if wrong else f"{self.name} makes no sense", value, place)

    def _refused(self, what: str, value: object, place: str, more: str = "") -> ConfigError:
        return ConfigError(
            what, where=place, got=shortened(value), allowed=self.allowed + more, outputs=UNTOUCHED, todo="correct the value"
        )


def arguments(
    target: Callable[..., Any],
    table: Mapping[str, Any],
    where: str,
    skip: Sequence[str] = (),
    besides: Sequence[str] = (),
    finite: bool = True,
) -> dict[str, Any]:
    """Check `table` against the parameters of `target`, names and values, and return it as keyword arguments.

    Args:
        target: a class or function; its annotations say what is allowed.
        table: as it was read.
        where: file and section.
        skip: parameters that a file does not give.
        besides: keys that are known and read elsewhere.
        finite: NaN and infinite numbers are refused; not so in a file that hil wrote itself.

    Raises:
        ConfigError: an unknown key (the nearest is named), a value of the wrong kind, or a missing one.
    """
    try:
        known = {name: one for name, one in parameters(target).items() if name not in skip}
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{said(target)} takes no settings", where=where, allowed="a class, or a function", outputs=UNTOUCHED,
            todo="name another module:Class",
        ) from error  # fmt: skip
    aliases = {one.alias: name for name, one in reversed(known.items()) if one.alias}  # of two the first
    found: dict[str, Any] = {}
    for key, value in table.items():
        full = key if key in known else aliases.get(key, "")
        if not full:
            raise unknown(where, key, value, [*known, *aliases, *besides])
        if full in found:
            raise ConfigError(
                "a setting is given twice", where=f"{where} {key}", got=f"{full} in two spellings", outputs=UNTOUCHED,
                todo="remove one",
            )  # fmt: skip
        found[full] = known[full].checked(value, f"{where} {key}", finite)
    missing = [name for name, one in known.items() if one.needed and name not in found]
    if missing:
        raise ConfigError(
            "settings are missing", where=where, got="no " + ", ".join(missing), outputs=UNTOUCHED, todo="add them"
        )
    return found


def check(settings: Any, where: str) -> None:
    """Check the fields of a dataclass against their annotations; lists become tuples. Raises: ConfigError."""
    made: Callable[..., Any] = type(settings)
    for name, one in parameters(made).items():
        value = getattr(settings, name)
        checked = one.checked(value, f"{where} {name}")
        if checked is not value:
            object.__setattr__(settings, name, checked)  # it is being made, and frozen only afterwards


@functools.lru_cache(maxsize=1024)
def parameters(target: Callable[..., Any]) -> Mapping[str, Setting]:
    """Return the settings that `target` takes, by name.

    Raises:
        TypeError, ValueError: it cannot be called, or does not say.
    """
    own = is_dataclass(target)
    return {name: _setting(target, one, own) for name, one in inspect.signature(target).parameters.items() if name != "self"}


def in_words(kind: Any, many: bool = False) -> str:
    """An annotation for people: "number (float)", "positive whole number, or a list of positive whole numbers", "a, b, c".

    Args:
        kind: the annotation.
        many: in the plural.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = in_range(args[1:])
        if bounds and bounds in ("above 0", "1 or more" if args[0] is int else ""):
            return f"positive {in_words(args[0], many)}"
        return in_words(args[0], many) + (f", {bounds}" if bounds else "")
    if origin is Literal:
        return ", ".join(str(one) or '""' for one in args)
    if origin in (Union, UnionType):
        return ", or ".join(in_words(each, many) for each in args if each is not NoneType)
    if origin in LISTS:
        return "a list of " + " and ".join(dict.fromkeys(in_words(each, many=True) for each in args if each is not Ellipsis))
    if origin in TABLES or _among(kind, TABLES):
        return "a table"
    one, more = WORDS.get(kind, ("", "")) if isinstance(kind, type) else ("", "")
    return (more if many else one) or (kind if isinstance(kind, str) else inspect.formatannotation(kind))


def in_range(constraints: Sequence[Any]) -> str:
    """The bounds of a number: "above 0, up to 1", "0 or more, below 1"."""
    found = {name: value for each in constraints for name, value in _bounds(each)}
    if "ge" in found and "le" in found:
        return f"{found['ge']:g} to {found['le']:g}"
    words = {"gt": "above {:g}", "ge": "{:g} or more", "lt": "below {:g}", "le": "up to {:g}"}
    return ", ".join(text.format(found[name]) for name, text in words.items() if name in found)


def unknown(where: str, key: str, value: object, known: Iterable[str]) -> ConfigError:
    """The error for a key that is not one of `known`; the nearest of them is offered."""
    known = tuple(dict.fromkeys(known))
    hint = nearest(key, known)
    return ConfigError(
        f"{key} = {shortened(value)}: unknown key" + (f'. Did you mean "{hint}"?' if hint else ""),
        where=where, allowed=", ".join(known), outputs=UNTOUCHED, todo="correct or remove the key",
    )  # fmt: skip


def no_such(what: str, got: str, known: Iterable[str], where: str) -> ConfigError:
    """The error for the name of a `what` that is not one of `known`; the nearest of them is offered."""
    known = tuple(known)
    hint = nearest(got, known)
    todo = f"did you mean {hint}?" if hint else "choose one of these"
    return ConfigError(f"unknown {what}", where=where, got=got, allowed=", ".join(known), outputs=UNTOUCHED, todo=todo)


def shortened(value: object) -> str:
    """Shorten a value to what a message has room for."""
    huge = isinstance(value, int) and abs(value) > sys.float_info.max  # Python does not print it without end
    text = f'"{value}"' if isinstance(value, str) else "a whole number without end" if huge else str(value)
    return text if len(text) < 60 else text[:57] + "..."


# ---- an annotation --------------------------------------------------------------------------------------------------------


def _setting(target: Any, one: inspect.Parameter, field: bool) -> Setting:
    kind = _resolved(target, one)
    alone = one.default is one.empty and (field or one.kind is one.KEYWORD_ONLY)
    stems = (one.name[:i] for i in range(1, len(one.name)) if one.name[i] == "_")
    alias = next((stem for stem in stems if suffix_of(one.name, stem) and not stem.endswith("_per")), "")  # dB/Hz is not Hz
    unbounded = UNBOUNDED in _notes(kind)
    strict = None if kind is one.empty else _strict(kind)
    adapter = None if strict is None else TypeAdapter[Any](strict)
    return Setting(one.name, alias, kind, one.default, alone, suffix_of(one.name, alias), unbounded, adapter)


def _resolved(target: Any, one: inspect.Parameter) -> Any:
    """The annotation of a parameter; as it is written where its names cannot be found."""
    if not isinstance(one.annotation, str):
        return one.annotation
    bases = target.__mro__ if isinstance(target, type) else ()
    base = next((each for each in bases if one.name in vars(each).get("__annotations__", {})), None)  # of a dataclass
    function = inspect.getattr_static(target, "__init__") if isinstance(target, type) else target
    names = getattr(inspect.unwrap(function), "__globals__", {}) if base is None else vars(sys.modules[base.__module__])
    holder = SimpleNamespace(__annotations__={"_": one.annotation})
    try:
        return get_type_hints(holder, dict(names), include_extras=True)["_"]
    except Exception:  # noqa: BLE001  imported for type checkers alone, or no type at all
        return one.annotation


def _strict(kind: Any) -> Any:
    """The annotation as pydantic is to check it: scalars strictly, lists for tuples. None: this checker does not know it."""
    origin, args = get_origin(kind), get_args(kind)
    if _among(kind, SCALARS):
        return Annotated[kind, pydantic.Strict()]
    if _among(kind, (Any, object, NoneType, *TABLES)) or origin is Literal:
        return kind
    if origin is Annotated:
        inner = _strict(args[0])
        return None if inner is None else Annotated[(inner, *args[1:])]
    if origin not in (Union, UnionType, *LISTS, *TABLES):
        return None
    parts = tuple(each if each is Ellipsis else _strict(each) for each in args)
    if any(part is None for part in parts):
        return None
    return functools.reduce(operator.or_, parts) if origin in (Union, UnionType) else origin[parts]


def _among(kind: Any, kinds: Iterable[Any]) -> bool:
    return any(kind is each for each in kinds)  # some annotations can neither be hashed nor compared


def _options(kind: Any) -> list[Any]:
    """Return what a parameter may be, without None: the parts of a union."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [get_args(part)[0] if get_origin(part) is Annotated else part for part in parts if part is not NoneType]


def _numbers(kind: Any) -> bool:
    """True if a parameter may be a list of numbers: float | tuple[float, ...]."""
    return any(get_origin(one) in LISTS and all(part in (float, Ellipsis) for part in get_args(one)) for one in _options(kind))


def _notes(kind: Any) -> Iterator[Any]:
    """Everything that annotates an annotation or its parts."""
    if get_origin(kind) is Annotated:
        yield from get_args(kind)[1:]
    for part in get_args(kind):
        yield from _notes(part)


def _bounds(constraint: Any) -> Iterator[tuple[str, Any]]:
    for each in getattr(constraint, "metadata", (constraint,)):
        for name in ("gt", "ge", "lt", "le"):
            if getattr(each, name, None) is not None:
                yield name, getattr(each, name)


def _finite(value: object, unbounded: bool) -> bool:
    """True if all numbers in `value` are such as a float can be, and finite unless they are `unbounded`."""
    if isinstance(value, list | tuple):
        return all(_finite(item, unbounded) for item in value)
    if isinstance(value, Mapping):
        return all(_finite(item, unbounded) for item in value.values())
    if isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return not isinstance(value, float) or math.isfinite(value) or (unbounded and value > 0)
