"""The settings of one box or one of its channels: named values, changed as a whole or not at all.

A change is tried on a copy; `check` may refuse it with -221 or -222. The real boxes clip to the limit *and* report; these
report and keep the old value, so a driver that relies on clipping is found out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hil.errors import ContractError
from sim_devices.instruments.parameters import Parameter, Value, number
from sim_devices.instruments.program_message import Token
from sim_devices.instruments.scpi import Call, Command


class Settings:
    """The settings of a box or channel by name, each within its limits.

    Args:
        parameters: by name, each with its default.
        check: refuses a combination by raising ScpiError.
        changed: told after every change that was accepted, not of a reset or a restore.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        check: Callable[[Settings], None] | None = None,
        changed: Callable[[], None] | None = None,
    ) -> None:
        self._parameters, self._check, self._changed = parameters, check, changed
        self._values: dict[str, Value] = {}
        self.reset()

    def reset(self) -> None:
        """Set everything to its default."""
        self._values = {name: parameter.default for name, parameter in self._parameters.items()}

    def number(self, name: str) -> float:
        """Return a setting that is a number."""
        return float(self._values[name])

    def flag(self, name: str) -> bool:
        """Return a setting that is on or off."""
        return bool(self._values[name])

    def text(self, name: str) -> str:
        """Return a setting that is a word."""
        return str(self._values[name])

    def change(self, **changes: Value) -> None:
        """Change all of them, or none.

        Raises:
            ScpiError: the result would break the rules.
        """
        tried = Settings.__new__(Settings)
        tried._parameters, tried._check, tried._values = self._parameters, None, {**self._values, **changes}
        if self._check is not None:
            self._check(tried)
        self._values = tried._values
        if self._changed is not None:
            self._changed()

    def read(self, name: str, token: Token) -> Value:
        """Parse a parameter of the setting `name`, without setting it."""
        return self._parameters[name].read(token)

    def shown(self, name: str, call: Call) -> str:
        """The answer to ``NAME?`` or ``NAME? MIN|MAX|DEF``."""
        parameter = self._parameters[name]
        if call.tokens:
            return parameter.show(parameter.limit(call.word()))
        return parameter.show(self._values[name])

    def snapshot(self) -> dict[str, object]:
        """Return all values by name."""
        return dict(self._values)

    def restore(self, state: object) -> None:
        """Set all values from a snapshot.

        Raises:
            ContractError: it is of another model, or has a value that cannot be; nothing was set.
        """
        if not isinstance(state, Mapping) or set(state) != set(self._values):
            raise ContractError("a snapshot of another model", where="simulated box", got=str(state)[:80])
        for name, value in state.items():
            if not self._parameters[name].holds(value):
                raise ContractError("a setting that cannot be", where=f"simulated box, {name}", got=f"{value!r}"[:80])
        self._values = dict(state)


def scaled(pattern: str, name: str, of: Callable[[Call], Settings], factor: float, style: str, unit: str = "") -> Command:
    """``pattern <value>`` and ``pattern?`` for a number that is kept as `factor` times what is said."""

    def put(call: Call) -> None:
        settings = of(call)
        settings.change(**{name: settings.read(name, repr(number(call.only(), unit) * factor))})

    return Command(pattern, put, lambda call: f"{of(call).number(name) / factor:{style}}")


def setting(pattern: str, name: str, of: Callable[[Call], Settings], after: Callable[[Call], None] | None = None) -> Command:
    """``pattern <value>`` and ``pattern?`` for one named setting; `after` runs when it was set."""

    def put(call: Call) -> None:
        settings = of(call)
        settings.change(**{name: settings.read(name, call.only())})
        if after is not None:
            after(call)

    def get(call: Call) -> str:
        return of(call).shown(name, call)

    return Command(pattern, put, get)
