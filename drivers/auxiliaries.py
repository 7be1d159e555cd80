"""Instruments beside the node, as a bias supply or a laser: they hold what they were set to, and are made safe.

    start, in order:  hold each value -> "output" last -> wait settle_s -> read back, within the tolerance -> the next one
    reset, in order:  those that are made safe before the node's instruments; the node's; the others

So a bias was read back before the laser is switched on, and the laser is off before the bias is. A driver that is `Holdable`
can be one; drivers/scpi_source.py makes one of a table of SCPI words. The guardian knows their safe states before the first of
them is switched on (hil/build/auxiliaries.py), and what they hold is read back on the schedule of the device's PanelWatch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from drivers.read_back import OUTPUT, Looked, Panelled
from drivers.safe import SafeState
from hil.device import Port
from hil.errors import CommandRefused

SHARE, RANGE_SHARE = 0.01, 1e-3  # of a value, and of the range of a setting: the tolerance, unless one is given
NAP_S = 0.5  # a wait is cut into such parts, so that the guardian hears of it


@runtime_checkable
class Holdable(Protocol):
    """A driver whose instrument can stand beside a node. Its constructor leaves the outputs off."""

    def holdable(self) -> Mapping[str, Port]:
        """Name -> limits and unit of all that can be held; "output" is one, 0 or 1, if it has any."""

    def hold(self, name: str, value: float) -> None:
        """Set one of them, in the unit of its port. Raises: OutOfRange: nothing was sent. CommandRefused, LinkError."""

    def read_back(self, name: str) -> float:
        """Ask the instrument: measured where it measures, else what is set."""

    def rest_at(self, values: Mapping[str, float]) -> None:
        """Let the safe state hold these values too; "output" 1: its outputs stay on. Sends nothing. Raises: OutOfRange."""

    def safe_state(self) -> SafeState:
        """See drivers.safe.Switchable."""

    def reset(self) -> None:
        """Make safe, then go to the known state of the maker. Raises: SwitchedOff."""

    def clear(self) -> None:
        """Clear the wire: what is in flight is discarded."""

    def reopen(self) -> None:
        """Close the wire and open it again."""

    def identify(self) -> str:
        """Verify that the same instrument answers; return who it is, a line for people."""

    def close(self) -> None:
        """Bring the outputs to safe and close the wire."""


@dataclass(frozen=True)
class Auxiliary:
    """An instrument without a role, and what it holds.

    Args:
        name: on its bench.
        driver: opened.
        values: by name, in the unit of its port, in the order in which they are set; "output" is set last.
        settle_s: wait after they were set, before they are read back.
        tolerance: largest difference of what is read back, by name; left out: SHARE of the value, or RANGE_SHARE of the range.
    """

    name: str
    driver: Holdable
    values: Mapping[str, float]
    settle_s: float = 0.0
    tolerance: Mapping[str, float] = field(default_factory=dict)

    def near(self, name: str) -> float:
        """The tolerance of a value."""
        port = self.driver.holdable()[name]
        given = self.tolerance.get(name)
        return max(SHARE * abs(self.values[name]), RANGE_SHARE * port.span) if given is None else given


class Auxiliaries:
    """The instruments beside one node.

    Args:
        members: in the order in which they are started.
        first: names of those that are made safe before the node's instruments, in order.
        last: names of the others, in order.
        sleep: waits so many seconds.
        beat: called at least every NAP_S while it waits.
    """

    def __init__(
        self,
        members: Sequence[Auxiliary] = (),
        first: Sequence[str] = (),
        last: Sequence[str] = (),
        sleep: Callable[[float], None] = time.sleep,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._members, self._sleep, self._beat = tuple(members), sleep, beat
        of = {member.name: member.driver for member in members}
        self._first, self._last = [of[name] for name in first], [of[name] for name in last]

    def __bool__(self) -> bool:
        """True if there are any."""
        return bool(self._members)

    @property
    def looked(self) -> list[Looked]:
        """Those that say what they hold: the panel of a driver, or a driver that looks by itself."""
        drivers = [member.driver for member in self._members]
        panels = [one.panel if isinstance(one, Panelled) else one for one in drivers]
        return [one for one in panels if isinstance(one, Looked)]

    def start(self) -> None:
        """Set, settle and read back each, in order; a later one is not touched before an earlier one holds.

        Raises:
            CommandRefused: an instrument does not hold what it was set to. OutOfRange, SwitchedOff, LinkError.
        """
        for member in self._members:
            for name in sorted(member.values, key=lambda one: one == OUTPUT):
                member.driver.hold(name, member.values[name])
            self._wait(member.settle_s)
            for name, value in member.values.items():
                self._verify(member, name, value)

    def _verify(self, member: Auxiliary, name: str, value: float) -> None:
        found, near = member.driver.read_back(name), member.near(name)
        if not abs(found - value) <= near:
            unit = member.driver.holdable()[name].unit
            raise CommandRefused(
                "an instrument does not hold what it was set to", where=f"{member.name} {name}", got=f"{found:.6g} {unit}",
                allowed=f"{value:.6g} {unit}, within {near:.3g}", outputs="what is switched on later is off still",
                todo="look at its limits, its load and its cables; a larger settle or tolerance in the bench file may be right",
            )  # fmt: skip

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            self._beat()
            self._sleep(min(NAP_S, seconds))
            seconds -= NAP_S

    def clear(self) -> None:
        """Empty all wires."""
        for member in self._members:
            member.driver.clear()

    def reopen(self) -> None:
        """Open all wires anew."""
        for member in self._members:
            member.driver.reopen()

    def identify(self) -> tuple[str, ...]:
        """The same instruments must answer."""
        return tuple(member.driver.identify() for member in self._members)

    def reset(self, node: Callable[[], None]) -> None:
        """Make all of them safe and reset them, in the order of [safe].

        Args:
            node: resets the node's own instruments, when it is their turn.
        """
        for driver in self._first:
            driver.reset()
        node()
        for driver in self._last:
            driver.reset()
