"""Generated quantities: texts that a person could write, made from a known value and unit, legal and illegal.

legal      the sign, the point, the exponent, the blanks and the name of the unit vary; the float must be the one nearest to the
           exact value, which is computed here from decimal digits and a table of factors
illegal    one fault is put into a legal text: a comma, a separator, a second number, arithmetic, another kind of unit, ...;
           it must be refused, with what to write instead

A text that takes longer than SLOWEST_S of processor time counts as wrong, whatever came of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from hil.errors import ConfigError
from hil.units import quantity

TRIED, TRIED_QUICK = 12_000, 2_000
SLOWEST_S = 0.5
PREFIXES = {
    "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "m": -3, "u": -6, "\u00b5": -6, "\u03bc": -6, "n": -9, "p": -12, "f": -15,
}  # fmt: skip


def _prefixed(before: str, after: str = "", sign: int = 1, unit: Fraction = Fraction(1)) -> dict[str, Fraction]:
    """Every prefix between two parts of a name, and what it makes of the unit."""
    return {f"{before}{prefix}{after}": unit * Fraction(10) ** (sign * power) for prefix, power in PREFIXES.items()}


ONE, MILLI = Fraction(1), Fraction(1, 1000)
OHMS = {name: factor for ohm in ("ohm", "Ohm", "\u03a9", "\u2126") for name, factor in _prefixed("", ohm).items()}
UNITS: dict[str, dict[str, Fraction]] = {
    "volt": _prefixed("", "V") | {"volt": ONE, "volts": ONE, "millivolts": MILLI},
    "second": _prefixed("", "s") | {"min": Fraction(60), "h": Fraction(3600), "seconds": ONE},
    "hertz": _prefixed("", "Hz") | _prefixed("", "Sa/s") | {"s**-1": ONE, "s^-1": ONE, "s⁻¹": ONE},
    "watt": _prefixed("", "W") | {"mJ/s": MILLI, "V*A": ONE} | _prefixed("V\u00b7", "A"),
    "ampere": _prefixed("", "A") | {"V/kohm": MILLI},
    "ohm": OHMS | {"ohms": ONE} | _prefixed("V/(", "A)", -1),
    "radian": _prefixed("", "rad"),
    "kelvin": _prefixed("", "K"),
    "volt / second": _prefixed("V/", "s", -1),
    "radian / second": _prefixed("", "rad/s"),
    "ampere / watt": _prefixed("", "A/W"),
    "mV": _prefixed("", "V", unit=Fraction(1000)),
    "1": {"": ONE},
}
OTHER = {
    "volt": ("A", "V/s", "Vs", "V**2", "eV", "Vpp", "VA", "dBV", "mv", "Volt", "V A"),
    "second": ("Hz", "S", "m", "sec.", "Sa", "min.", "K", "As", "1/Hz"),
    "hertz": ("rad/s", "rpm", "s", "hz", "HZ", "MHZ", "Bd", "cps", "S/s", "turn/s", "Hzs"),
    "watt": ("dBm", "Wh", "J", "V", "w", "mw", "dB", "kWs"), "ampere": ("C", "amp.", "ma", "V", "a", "Ah"),
    "ohm": ("S", "OHM", "ohm.", "mho", "V", "Mohm/sq"), "radian": ("sr", "Hz", "s", "RAD", "m/m", "turn/s"),
    "kelvin": ("degC", "\u00b0C", "degF", "celsius", "k", "C"), "volt / second": ("V", "V s", "v/s", "V/m", "V/s/s"),
    "radian / second": ("Hz", "rad", "rad s", "1/s"), "ampere / watt": ("A", "W/A", "A/w", "dB"),
    "mV": ("mA", "mv", "dBmV"), "1": ("V", "dB", "rad", "%", "dozen", "counts"),
}  # fmt: skip


class Sample(NamedTuple):
    """expected: the float that the text stands for; None: it has to be refused."""

    text: object
    unit: str
    expected: float | None


def measure(quick: bool) -> dict[str, Any]:
    """Texts tried, and those that were taken for another value, refused though legal, or slow."""
    quantity("1 V", "volt", "first")  # the table of units is read
    rng = random.Random(2026)
    samples = [_sample(rng) for _ in range(TRIED_QUICK if quick else TRIED)]
    wrong = [(sample, fault) for sample in samples if (fault := _fault(sample))]
    for sample, fault in wrong[:10]:
        print(f"quantities: {sample.text!r} in {sample.unit}: {fault}", flush=True)
    return {"quantities_tried": len(samples), "quantities_wrong": len(wrong)}


def _fault(sample: Sample) -> str:
    begin = time.process_time()
    try:
        got: float | None = quantity(sample.text, sample.unit, "[generated] value")
    except ConfigError as error:
        got = None
        if not error.todo or not error.allowed:
            return "refused without a word about what to write"
    if time.process_time() - begin > SLOWEST_S:
        return f"took more than {SLOWEST_S:g} s"
    return "" if got == sample.expected else f"got {got}, expected {sample.expected}"


def _sample(rng: random.Random) -> Sample:
    unit = rng.choice(list(UNITS))
    name, factor = rng.choice(list(UNITS[unit].items()))
    digits = str(rng.randrange(10 ** rng.randint(1, 12)))
    value = Decimal(rng.choice((1, 1, -1)) * int(digits)).scaleb(-rng.randint(0, 9))
    if rng.random() < 0.5:
        return Sample(_legal(rng, value, name), unit, float(Fraction(value) * factor))
    fault = rng.choice(FAULTS)
    return Sample(fault(rng, value, name, unit), unit, None)


# ---- legal texts ----------------------------------------------------------------------------------------------------------


def _legal(rng: random.Random, value: Decimal, name: str) -> str:
    blanks = rng.choice(("", " ", "  ", "\u00a0", "\u2009", "\t")) if name else ""
    return f"{rng.choice(('', ' '))}{_digits(rng, value)}{blanks}{name}{rng.choice(('', ' '))}"


def _digits(rng: random.Random, value: Decimal) -> str:
    sign, size = ("-", -value) if value < 0 else (rng.choice(("", "", "+")), value)
    form = rng.randrange(4)
    if form == 0:
        text = f"{size:f}"
    elif form == 1:
        moved = rng.randint(-9, 9)
        text = f"{size.scaleb(-moved):f}{rng.choice('eE')}{rng.choice(('', '+')) if moved >= 0 else ''}{moved}"
    elif form == 2:
        text = f"{size:f}" + ("00" if "." in f"{size:f}" else ".")
    else:
        text = f"{size:f}".removeprefix("0") if size and f"{size:f}".startswith("0.") else f"0{size:f}"
    text = sign + text
    return text.replace("-", "\u2212") if rng.random() < 0.2 else text


# ---- one fault each -------------------------------------------------------------------------------------------------------

Fault = Callable[[random.Random, Decimal, str, str], object]


def _comma(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    whole = f"{abs(value):f}"
    text = whole.replace(".", ",") if "." in whole else f"{whole},{rng.randrange(1000)}"
    return f"{rng.choice(('', '-', '+'))}{text} {name}"


def _separators(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    mark = rng.choice((",", "_", "'", " ", "\u00a0", "\u2009", "\u202f", "."))
    tail = "." + str(rng.randrange(100)) if mark != "." else ",5"
    return f"{rng.randint(1, 999)}{mark}{rng.randrange(1000):03d}{tail} {name}"


def _second(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    first, other = f"{value:f}", str(rng.randrange(1, 100))
    between = rng.choice((" ", f" {name} ", f" {name or 'x'}; ", "..", " to ", " \u00b1 ", "/"))
    return f"{first}{between}{other} {rng.choice((name, ''))}"


def _arithmetic(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    other = rng.randrange(1, 100)
    size = f"{abs(value):f}"
    forms = (
        f"{size}+{other} {name}", f"{size} {name} - {other} {name}", f"2*{size} {name}", f"9**9**9**{other} {name}",
        f"1 {name}*9**9**9", f"({size}) {name}", f"{size} * {name}", f"10^{other} {name}", f"{size} {name}**9**9",
        f"--{size} {name}", f"- {size} {name}", f"sqrt({other}) {name}", f"__import__('os') {name}",
        f"{'(' * 40}{size}{')' * 40} {name}",
    )  # fmt: skip
    return rng.choice(forms)


def _trailing(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    tail = rng.choice(
        ("# offset", "(typ.)", "rms", "max", ";", ",", "// x", "\n1", '"', "\x00", "-", "=", "e", "?", "!", "% of it")
    )
    return f"{value:f} {name or 'x'} {tail}"


def _no_number(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    words = (
        "", "ten", "x", "nan", "NaN", "inf", "-Infinity", "HighZ", ".", "e5", "-", "\u0663", "\uff15", "\u00bd", "0x1F", "1e",
        "1e5.5", "1.2.3", "dozen", "2 dozen",
    )  # fmt: skip
    return f"{rng.choice(words)} {name}"


def _no_unit(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    return f"{value:f}" if name else f"{value:f} {rng.choice(OTHER[unit])}"


def _other_unit(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    return f"{value:f} {rng.choice(OTHER[unit])}"


def _case(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    """Another case, or a prefix too many; "Ohms" is written too, and left alone."""
    others = (name.swapcase(), name.upper(), name.capitalize(), f"mk{name}")
    wrong = [other for other in others if other not in (*UNITS[unit], "Ohms")]
    return f"{value:f} {rng.choice(wrong or ['x'])}"


def _out_of_range(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    power = rng.choice(("400", "-400", "999999999", "-999999999", "9" * 50))
    return rng.choice(
        (f"7e{power} {name}", f"{'7' * 400} {name}", 10**400, -(10**5000), float("nan"), float("inf"), float("-inf"))
    )


def _no_quantity(rng: random.Random, value: Decimal, name: str, unit: str) -> object:
    return rng.choice((True, False, None, [1.0], {"value": 1.0}, b"1 V", "", " ", f"[1] {name}", f"'1' {name}", value))


FAULTS: tuple[Fault, ...] = (
    _comma, _separators, _second, _arithmetic, _trailing, _no_number, _no_unit, _other_unit, _case, _out_of_range, _no_quantity,
)  # fmt: skip
