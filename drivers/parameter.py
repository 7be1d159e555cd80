"""A parameter of an instrument that a package drives: its name there, its limits, what switches it on and off."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.read_back import OUTPUT
from hil.device import Port
from hil.errors import UNTOUCHED, ConfigError
from hil.settings import NotNegative, Positive, check

STEP_S = 0.02  # between two steps of a level whose rate is limited


@dataclass(frozen=True, slots=True)
class Parameter:
    """A name of `holds` in an instrument's table.

    Args:
        of: how the package calls it, also of a channel: "ch_1.voltage_setpoint".
        low, high: limits, in `unit`; "output" has none.
        unit: as the package has it, also one that is no factor: "dBm".
        slew_per_s: its largest rate, in `unit` per s; None: any.
        on, off: what the package takes for "output".
        measure: the parameter that is asked for what it really is, while the output is on; "": none, what is set is asked for.
        resolution: what is read back may differ by so much before it counts as changed by another hand, in `unit`.
    """

    of: str
    low: float | None = None
    high: float | None = None
    unit: str = "1"
    slew_per_s: Positive | None = None
    on: bool | float | str = True
    off: bool | float | str = False
    measure: str = ""
    resolution: NotNegative = 0.0

    def __post_init__(self) -> None:
        check(self, "holds")
        words = (self.of, self.measure, *(word for word in (self.on, self.off) if isinstance(word, str)))
        if not self.of or any(sign in word for word in words for sign in ";="):
            raise ConfigError(
                "no parameter of a package", where="holds", got=", ".join(words), allowed="a name without ; and ="
            )
        if self.on == self.off or str(self.on).strip().upper() == str(self.off).strip().upper():
            raise ConfigError(
                "on and off are the same value", where=f"holds, of = {self.of}", got=f"on = {self.on!r}, off = {self.off!r}",
                allowed="two values that the package tells apart", outputs=UNTOUCHED, todo="correct on or off",
            )  # fmt: skip

    def port(self, name: str) -> Port:
        """Return its limits as a port. Raises: ConfigError: they are missing."""
        if name == OUTPUT:
            return Port(OUTPUT, 0, 1)
        if self.low is None or self.high is None:
            raise ConfigError(
                "a level needs limits, as its package has none that hil could know", where=f"holds.{name}",
                got=f"low {self.low}, high {self.high}", allowed=f"low and high, in {self.unit}", todo="add them",
            )  # fmt: skip
        return Port(name, self.low, self.high, self.unit, slew_per_s=self.slew_per_s)
