"""Text of a measured value: rounded to the second digit of its uncertainty, in a handy unit.

3.5178 ± 0.0412 V  ->  "3.518 ± 0.041 V"       12.4e-9 ± 0.03e-9 s  ->  "12.400 ± 0.030 ns"
"""

from __future__ import annotations

import math

PREFIXED = frozenset({"s", "V", "A", "W", "Hz", "ohm", "rad", "rad/s", "B/s", "Sa/s"})
PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def with_uncertainty(value: float, sigma: float, unit: str = "1") -> str:
    """Return "value ± sigma unit"; without sigma if it is 0 or no number. A small number without unit gets a power of 10.

    >>> with_uncertainty(0.00042, 0.000019, "rad/s"), with_uncertainty(2.96e-5, 3.9e-5), with_uncertainty(3.5, 0.0, "V")
    ('420 ± 19 µrad/s', '(3.0 ± 3.9) × 10⁻⁵', '3.5 V')
    """
    if not (math.isfinite(value) and sigma > 0 and math.isfinite(sigma)):
        sigma = 0.0
    power = _power(max(abs(value), sigma), unit)
    value, sigma = value * 10.0**-power, sigma * 10.0**-power
    digits = min(12, max(0, 1 - math.floor(math.log10(float(f"{sigma:.1e}"))))) if sigma else 0
    text = f"{value:.{digits}f} ± {sigma:.{digits}f}" if sigma else f"{value:.6g}"
    if unit == "1":
        return text if not power else f"{f'({text})' if sigma else text} × 10{str(power).translate(RAISED)}"
    return f"{text} {PREFIXES[power]}{unit}"


def prefixed(largest: float, unit: str) -> tuple[float, str]:
    """Return the factor and the unit in which values up to `largest` are read easily: (1e3, "mV").

    >>> prefixed(0.0024, "V"), prefixed(0.0024, "1"), prefixed(40.0, "V")
    ((1000.0, 'mV'), (1.0, '1'), (1.0, 'V'))
    """
    size = abs(largest)
    if unit not in PREFIXED or not size or not math.isfinite(size) or 1 <= size < 1e3:
        return 1.0, unit
    power = min(9, max(-12, 3 * math.floor(math.log10(size) / 3)))
    return float(10.0**-power), f"{PREFIXES[power]}{unit}"


def _power(size: float, unit: str) -> int:
    """Return the power of 10 that is written as a prefix of the unit, or beside a pure number."""
    if not size or not math.isfinite(size) or 0.1 <= size < 1e4:
        return 0
    exponent = math.floor(math.log10(size))
    if unit == "1":
        return exponent if exponent < -3 else 0
    return min(9, max(-12, 3 * math.floor(exponent / 3))) if unit in PREFIXED else 0
