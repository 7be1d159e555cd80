"""Text such as "10 mV" becomes an SI float here, at the edge, and nowhere else: one number and one unit.

    quantity   = number blanks unit
    number     = [sign] digits ["." [digits]] [("e" | "E") [sign] digits]        also ".5"; the signs: + - and U+2212
    unit       = power { ("*" | "·" | "/") power }
    power      = (name | "(" unit ")") [("**" | "^") exponent | superscript]     "V", "MSa/s", "A/Hz**0.5", "s⁻¹"
    exponent   = [sign] (1 to 9, 0.5, 1.5 to 9.5)

Nothing is evaluated. pint says what a single name stands for ("kΩ" is 1000 V/A), as an exact fraction; the product is rounded
once, so that "12.4 ns" is the float 12.4e-9. The units of the root must be the same: pint alone would take 1 rad/s for 1 Hz.
Units that are no pure factor (degC, dBm) are refused. Case matters: mV is a thousandth, MV a million.

Source: pint 0.25, `default_en.txt`; SI brochure, 9th edition, 5.4 (one space, a decimal point, no separators but blanks).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from hil.errors import ConfigError

if TYPE_CHECKING:
    from pint import UnitRegistry

UNBOUNDED = "or infinite"
Unbounded = Annotated[float, UNBOUNDED]
"""Annotates a setting that may be infinite: `load = "HighZ"`, "INFinity" or "inf", in any case, or TOML's inf."""

SUFFIXES = {
    "v": "volt", "s": "second", "hz": "hertz", "w": "watt", "a": "ampere", "ohm": "ohm", "rad": "radian", "k": "kelvin",
    "m": "metre", "siemens": "siemens", "siemens_per_v": "siemens / volt",
    "rad_per_s": "radian / second", "rad_per_rts": "radian / second ** 0.5", "a_per_w": "ampere / watt",
    "a_per_rthz": "ampere / hertz ** 0.5", "v_per_s": "volt / second", "bytes_per_s": "byte / second",
}  # fmt: skip
KINDS = {
    "volt": "a voltage", "second": "a time", "hertz": "a frequency", "watt": "a power", "ampere": "a current",
    "ohm": "a resistance", "radian": "an angle", "kelvin": "a temperature", "siemens": "a conductance",
    "volt / second": "a slew rate", "metre": "a length", "byte / second": "a data rate",
}  # fmt: skip
SYMBOLS = {
    "volt": "V", "second": "s", "hertz": "Hz", "watt": "W", "ampere": "A", "radian": "rad", "kelvin": "K", "siemens": "S",
    "metre": "m", "byte": "B",
}  # fmt: skip
UNITLESS = {"", "1", "dimensionless"}
LONGEST = 100  # characters of a text
BLANKS = " \t\u00a0\u2009\u202f"  # what a text copied from a data sheet has between number and unit
SIGN = "[-+\u2212]"
NUMBER = re.compile(rf"({SIGN}?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]({SIGN}?[0-9]+))?")
INFINITE = re.compile(r"\+?inf(inity)?|hi(gh)?[- ]?z", re.IGNORECASE)
FARTHEST = 999  # decimal exponent; a larger one is no quantity, and would cost memory before it is refused
SAME = str.maketrans({"\u2126": "\u03a9", "\u03bc": "\u00b5", "\u2212": "-", "\u22c5": "\u00b7", **dict.fromkeys(BLANKS, " ")})
NAME = "°?[A-Za-z\u00b5\u03a9]+|°"
TOKEN = re.compile(
    rf" *(?:(?P<name>{NAME})|(?:\*\*|\^) *(?P<power>[-+]?(?:[1-9](?:\.5)?|0\.5)(?![0-9.]))"
    r"|(?P<raised>⁻?[¹²³])|(?P<sign>[*·/()])) *"
)
RAISED = str.maketrans("⁻¹²³", "-123")
PREFIXES = ("", "G", "M", "k", "m", "µ", "u", "n", "p")

Factor = Fraction | float
Roots = Mapping[str, Fraction]
"""Exponents of the base units that a unit is made of, angle and counts among them."""


def quantity(value: object, unit: str, where: str, unbounded: bool = False) -> float:
    """`value` in `unit`: a number is taken as being in it, text is one number and one unit ("3.5 V", "12 ns").

    Args:
        value: as it was written.
        unit: a symbol, a name, or a product of them ("radian / second ** 0.5"); "1" or "dimensionless" for a bare number.
        where: file and key, for messages.
        unbounded: it may be infinite, in words too ("HighZ", "INFinity").

    Raises:
        ConfigError: not one finite number, not a unit, or a unit of another kind; the message says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _refused(value, unit, where, f"write {_example(unit)}")
    if isinstance(value, str):
        if not unbounded:
            return _of_text(value, unit, where)
        try:
            return math.inf if INFINITE.fullmatch(value.strip(BLANKS)) else _of_text(value, unit, where)
        except ConfigError as error:
            error.allowed += ', or "HighZ" alone'
            raise
    try:
        number = float(value)
    except OverflowError:
        raise _refused(value, unit, where, "write a number that is not so large") from None
    if not math.isfinite(number) and not (unbounded and number > 0):
        raise _refused(value, unit, where, "write a finite number")
    return number


def quantities(value: object, unit: str, where: str, unbounded: bool = False) -> float | tuple[float, ...]:
    """`value` in `unit`, or a list of values, one for each channel: ["-1.2 V", "-700 mV"]. Arguments as of `quantity`.

    Raises:
        ConfigError: as `quantity`; of a list it says which one, counted from 1.
    """
    if not isinstance(value, list | tuple):
        return quantity(value, unit, where, unbounded)
    return tuple(quantity(one, unit, f"{where}, number {k}", unbounded) for k, one in enumerate(value, 1))


def finite(text: str) -> float:
    """The number that `text` is, blanks around it left out.

    >>> finite(" +1.50E-3")
    0.0015

    Raises:
        ValueError: it is no number in decimal digits (nan, inf, "1_5", "1,5"), or too large or too small for a float.
    """
    found = NUMBER.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a number: {text[:40]!r}")
    return _rounded(_exact(found))


def suffix_of(parameter: str, stem: str) -> str | None:
    """The unit that a parameter's name states: ("v_pi_v", "v_pi") -> "volt"; None if it states none of ours."""
    return SUFFIXES.get(parameter[len(stem) + 1 :]) if parameter.startswith(stem + "_") else None


# ---- the number -----------------------------------------------------------------------------------------------------------


def _exact(found: re.Match[str]) -> Fraction:
    """Raises: ValueError: an exponent that no float has."""
    digits, power = (part.replace("\u2212", "-") for part in (found[1], found[2] or "0"))
    if len(power.lstrip("+-0")) > len(str(FARTHEST)) or len(digits) > LONGEST:
        raise ValueError("a number out of the range of a float")
    return Fraction(digits) * Fraction(10) ** int(power)


def _rounded(exact: Factor) -> float:
    """Raises: ValueError: too large, or so small that it would become zero."""
    try:
        number = float(exact)
    except OverflowError:
        number = math.inf
    if math.isinf(number) or (number == 0 and exact != 0):
        raise ValueError("a number out of the range of a float")
    return number


# ---- the unit -------------------------------------------------------------------------------------------------------------


class _Unknown(ValueError):
    """A name that stands for no unit, or for one that is no pure factor. Its text says what to do."""


def _of_text(text: str, unit: str, where: str) -> float:
    stripped = text.strip(BLANKS)
    found = NUMBER.match(stripped) if len(stripped) <= LONGEST else None
    if found is None:
        raise _refused(text, unit, where, _advice(stripped, unit))
    written, target = (part.translate(SAME).strip(" ") for part in (stripped[found.end() :], unit))
    try:
        if written == target or (target in UNITLESS and not written):
            return _rounded(_exact(found))
        if not written or (factors := _powers(written)) is None:
            raise _Unknown(_advice(stripped, unit))
        return _rounded(_exact(found) * _ratio(factors, written, target, unit))
    except ValueError as error:
        raise _refused(text, unit, where, str(error)) from None


def _ratio(factors: list[tuple[str, Fraction]], written: str, target: str, unit: str) -> Factor:
    """Return what one of `written` is in `target`. Raises: _Unknown: another kind."""
    asked = _powers(target) if target not in UNITLESS else []
    if asked is None:
        raise _Unknown(f'this setting is in "{unit}", which is no unit that others convert to: write the number without quotes')
    try:
        factor, roots = _product(factors)
        own, due = _product(asked)
    except _Unknown as error:
        raise _Unknown(_spelling(written, unit) or str(error)) from None
    if roots != due:
        turned = "radian" in {**roots, **due} and {**roots, "radian": 0} == {**due, "radian": 0}
        raise _Unknown(
            (f"an angle is not a number of cycles: convert it by 2 pi, and write {_example(unit)}" if turned else "")
            or _spelling(written, unit) or f'"{written}" is another kind of quantity: write {_example(unit)}'
        )  # fmt: skip
    return factor / own


def _powers(text: str) -> list[tuple[str, Fraction]] | None:
    """(name, exponent) of every factor of a unit; None if it is not written as one."""
    tokens, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            return None
        at = found.end()
        if found["name"]:
            tokens.append(("name", found["name"]))
        elif power := found["power"] or found["raised"]:
            tokens.append(("power", power.translate(RAISED)))
        else:
            tokens.append((found["sign"].replace("·", "*"), ""))
    rest = iter([*tokens, ("end", "")])
    try:
        factors, last = _factors(rest)
    except ValueError:
        return None
    return factors if last == "end" else None


def _factors(tokens: Iterator[tuple[str, str]]) -> tuple[list[tuple[str, Fraction]], str]:
    """Factors up to the end or a closing parenthesis, and which. Raises: ValueError: another order."""
    found: list[tuple[str, Fraction]] = []
    sign = "*"
    while sign in ("*", "/"):
        kind, text = next(tokens)
        if kind == "name":
            group = [(text, Fraction(1))]
        elif kind == "(":
            group, closed = _factors(tokens)
            if closed != ")":
                raise ValueError("an open parenthesis")
        else:
            raise ValueError("no name")
        power = Fraction(-1 if sign == "/" else 1)
        sign, text = next(tokens)
        if sign == "power":
            power *= Fraction(text)
            sign, _ = next(tokens)
        found += [(name, own * power) for name, own in group]
    if sign not in ("end", ")"):
        raise ValueError("no sign between two names")
    return found, sign


def _product(factors: list[tuple[str, Fraction]]) -> tuple[Factor, Roots]:
    """Raises: _Unknown."""
    product: Factor = Fraction(1)
    roots: dict[str, Fraction] = {}
    for name, power in factors:
        factor, of = _meant(name)
        product = product * factor**power
        for root, own in of.items():
            roots[root] = roots.get(root, Fraction(0)) + own * power
    return product, {root: power for root, power in roots.items() if power}


@lru_cache(maxsize=1024)
def _meant(name: str) -> tuple[Fraction, Roots]:
    """One `name` in the base units. Raises: _Unknown: there is no such unit, or it is no pure factor of them."""
    import pint  # slow to import, and only texts with units need it

    units, known = _units()
    if name in UNITLESS:
        return Fraction(1), {}
    if name == "°":
        name = "degree"
    for prefix, unit, suffix in units.parse_unit_name(name):
        stem = name.removesuffix("s")
        plural = stem != name and (prefix, unit, suffix) in units.parse_unit_name(stem)
        if unit not in known or (plural and not stem.lower().endswith(unit)):
            continue  # one prefix, not two; a symbol has no plural: "Hzs" is not hertz
        try:
            none, one = (units.Quantity(Fraction(n), prefix + unit).to_root_units() for n in (0, 1))
            pure, exact = none.magnitude == 0, Fraction(str(one.magnitude))
        except (pint.PintError, TypeError, ValueError, ArithmeticError):  # a logarithm of zero
            pure, exact = False, Fraction(0)
        if not pure:
            raise _Unknown(f'"{name}" counts from an offset, or in logarithms: write it in an absolute, linear unit, as K or W')
        return exact, {str(root): Fraction(str(power)) for root, power in one.unit_items()}
    raise _Unknown(f'"{name}" is no unit that is known here')


@cache
def _units() -> tuple[UnitRegistry[Any], frozenset[str]]:
    """Every unit there is, and their names without prefixes (pint adds "millivolt" to its own when it meets one).

    They are read once: it takes a quarter of a second.
    """
    import pint

    units: UnitRegistry[Any] = pint.UnitRegistry(cache_folder=None, non_int_type=Fraction)
    units.define("sample = 1 = Sa")  # of a converter: MSa/s
    units.define("@alias ohm = Ohm")
    return units, frozenset(map(str, units))


# ---- what to write instead ------------------------------------------------------------------------------------------------


def _refused(value: object, unit: str, where: str, todo: str) -> ConfigError:
    if isinstance(value, int) and abs(value) >= 10**LONGEST:  # Python does not print it without end
        got = f"a whole number of {value.bit_length()} bits"
    else:
        got = repr(value) if len(repr(value)) < LONGEST else f"{repr(value)[:LONGEST]}…"
    what = "a number" if unit in UNITLESS else KINDS.get(unit, f"one number and one unit, {unit}")
    return ConfigError(
        "not a quantity of this kind", where=where, got=got, allowed=f"{what}, e.g. {_example(unit)}",
        outputs="untouched; nothing was opened", todo=todo,
    )  # fmt: skip


def symbol(unit: str) -> str:
    """Return the symbol of a parameter's unit: "V", "rad/s**0.5"; "" for a bare number."""
    return "" if unit in UNITLESS else re.sub("[a-z]+", lambda word: SYMBOLS.get(word[0], word[0]), unit).replace(" ", "")


def _example(unit: str, number: str = "1.5") -> str:
    return number if unit in UNITLESS else f'"{number} {symbol(unit)}"'


def _spelling(written: str, unit: str) -> str:
    """Units of the right kind that are written almost like this: "mv" -> mV or MV."""
    near = [p + symbol(unit) for p in PREFIXES if (p + symbol(unit)).casefold() == written.casefold()]
    return f"case matters in a unit: write {' or '.join(near)}" if near else ""


def _advice(text: str, unit: str) -> str:
    """Say what to write instead of a text that is not one number and one unit."""
    text = text[:LONGEST]
    comma = re.match(rf"({SIGN}?[0-9]+),([0-9]+)(?![0-9,.])", text)
    if re.search("[0-9],[0-9]", text):
        if comma is None:
            return f"write one number with a decimal point and without separators: {_example(unit)}"
        whole = f"{_example(unit, comma[1] + comma[2])} or " if len(comma[2]) == 3 else ""
        return f"write a decimal point, not a comma: {whole}{_example(unit, f'{comma[1]}.{comma[2]}')}"
    if re.match(rf"{SIGN}?[0-9]+([ _'’{BLANKS}][0-9]+)+", text):
        return f"write one number, its digits without anything between them: {_example(unit)}"
    if re.match(rf"{SIGN}?(nan|inf|hi)", text, re.IGNORECASE):
        return f"write a finite number: {_example(unit)}"
    if found := NUMBER.fullmatch(text):
        return f"name the unit: {_example(unit, found[0])}, or write the number without quotes"
    if not re.search("[0-9]", text):
        return f"write a number before the unit: {_example(unit)}"
    if "%" in text:
        return f"write a fraction instead of per cent, as 0.1, or the quantity itself: {_example(unit)}"
    return f"write one number and one unit, no arithmetic and nothing after them: {_example(unit)}"
