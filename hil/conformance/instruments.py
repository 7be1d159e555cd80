"""Check that a driver of an instrument does what a driver must.

The object under test is a thin frame around the driver, written in its test: it also looks from the other side of the wire
(a virtual bench, a second meter), where the truth is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hil.conformance.report import Broken, Checklist, NotApplicable, Report, need
from hil.errors import Refused


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting of the instrument, SI units.

    Args:
        write: through the driver.
        read: what the instrument has, asked of it, not remembered.
        allowed: values to try.
        refused: values outside the limits; NaN and infinity are always tried as well.
        resolution: smallest step that the instrument resolves.
    """

    name: str
    write: Callable[[float], None]
    read: Callable[[], float]
    allowed: Sequence[float]
    refused: Sequence[float] = ()
    resolution: float = 0.0


class InstrumentUnderTest(Protocol):
    """A driver, and the view behind it."""

    def identify(self) -> object:
        """Ask the instrument who it is: a value that can be compared."""

    def knobs(self) -> Sequence[Knob]:
        """Return the settings to turn."""

    def energise(self) -> bool:
        """Switch its outputs on, through the driver; False for an instrument that has none."""

    def safe(self) -> None:
        """Bring the outputs to safe, by the driver's own means."""

    def is_safe(self) -> bool:
        """The truth, not asked through the driver."""

    def sent(self) -> int:
        """Messages that the driver has sent so far."""

    def close(self) -> None:
        """Close the driver, by its own means."""


def check_instrument(make: Callable[[], InstrumentUnderTest]) -> Report:
    """Try fresh instruments from `make`.

    Raises:
        ContractError: with the list of what failed.
    """
    box = make()
    checks = Checklist(f"instrument {type(box).__name__}")
    with checks("opening leaves the outputs safe", "unsafe"):
        need(box.is_safe(), "an output is on before anybody asked for it")
    with checks("says who it is, and says it again", "wrong"):
        who = box.identify()
        need(bool(who) and who == box.identify(), f"{who!r}, then something else")
    for knob in box.knobs():
        with checks(f"{knob.name} reads back as it was set", "wrong"):
            _round_trip(knob)
        with checks(f"{knob.name} refuses what is out of range, sending nothing", "unsafe"):
            _refuses(box, knob)
    with checks("safe() is safe", "unsafe"):
        _makes_safe(box, box.safe)
    with checks("close() is safe", "unsafe"):
        _makes_safe(box, box.close)
    with checks("close() may come twice", "unsafe"):
        box.close()
        need(box.is_safe(), "an output came on again")
    return checks.report()


def _round_trip(knob: Knob) -> None:
    need(len(knob.allowed) > 1, "at least two values must be tried")
    for value in knob.allowed:
        knob.write(value)
        found = knob.read()
        need(math.isclose(found, value, rel_tol=1e-6, abs_tol=0.51 * knob.resolution), f"set {value:g}, found {found:g}")


def _refuses(box: InstrumentUnderTest, knob: Knob) -> None:
    for value in (*knob.refused, math.nan, math.inf, -math.inf):
        before = box.sent()
        try:
            knob.write(value)
        except Refused:
            need(box.sent() == before, f"{value:g} was refused, but {box.sent() - before} messages were sent")
        else:
            raise Broken(f"{value:g} was taken")


def _makes_safe(box: InstrumentUnderTest, how: Callable[[], None]) -> None:
    driven = box.energise()
    need(not (driven and box.is_safe()), "the outputs did not switch on, so nothing is shown")
    how()
    need(box.is_safe(), "an output stayed on")
    if not driven:
        raise NotApplicable("it has no outputs")
