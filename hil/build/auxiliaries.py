"""Benches of many instruments: those with a role, and auxiliaries, which are set, held and made safe.

[instruments.laser]  use = "…"    set = { power = "2 mW" }    safe = { output = false }    settle = "2 s"    tolerance = 1e-5
[start]              order = ["bias", "laser"]     the first is set and verified first
[safe]               order = ["laser", "awg"]      the first is made safe first, whoever does it

    opened, in the order of [safe], which switches outputs off   ->   the guardian knows all safe states   ->   auxiliaries are
    started, in the order of [start]   ->   the device is made, which switches on those with a role
    closed, in the order of [safe], all of them whatever one says; after a SIGKILL the guardian keeps the same order

An auxiliary is an instrument that no key of [node] names, and that has `set`. Its driver is Holdable (drivers/auxiliaries.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from calibration.certificate import Instrument
from drivers.auxiliaries import Auxiliaries, Auxiliary
from drivers.read_back import OUTPUT
from drivers.safe import SafeState, Switchable, in_order
from hil.build.bench import LINK_S, Opening, instrument
from hil.config.bench import BenchFile, InstrumentTable
from hil.config.resolve import UNTOUCHED
from hil.device import Port
from hil.errors import ConfigError, OutOfRange, Refused
from hil.settings import no_such, shortened
from hil.units import quantity
from sim_devices.bench.served import ServedBench

NOTHING_SET = "off; nothing was set"


def auxiliary_names(bench: BenchFile, roles: Sequence[str]) -> tuple[str, ...]:
    """Names of the instruments without a role, in the order of [start].

    Raises:
        ConfigError: one of them holds nothing or cannot, or what only they can have is given to another.
    """
    names = [name for name in bench.instruments if name not in roles]
    for name, table in bench.instruments.items():
        given = {"set": table.set, "safe": table.safe, "tolerance": table.tolerance, "settle": table.settle_s}
        mine = [key for key, value in given.items() if value]
        if name in roles and mine:
            raise ConfigError(
                "an instrument with a role in [node] is set by the shape", where=table.place, got=", ".join(mine),
                allowed="these keys in instruments without a role", outputs=UNTOUCHED, todo="remove them, or the role",
            )  # fmt: skip
        if name not in roles and not table.set:
            raise ConfigError(
                "instruments without a role", where=f"{bench.place}: [node]", got=name, allowed=", ".join(roles),
                outputs=UNTOUCHED, todo=f"name {name} in [node], give it set = {{…}} to hold, or remove it",
            )  # fmt: skip
    wrong = [name for name in bench.start.order if name in roles]
    if wrong:
        raise ConfigError(
            "an instrument with a role in [node] is started by the shape, after the others", where=f"{bench.place}: [start]",
            got=", ".join(wrong), allowed=", ".join(names) or "no name", outputs=UNTOUCHED, todo="remove it from [start]",
        )  # fmt: skip
    return tuple(ordered(names, bench.start.order))


def ordered(names: Sequence[str], order: Sequence[str]) -> list[str]:
    """Return `names` as `order` has them; those that it does not name come last, as they came."""
    place = {name: k for k, name in enumerate(order)}
    return sorted(names, key=lambda name: place.get(name, len(place)))


class Table:
    """The instruments of a bench that speak SCPI, opened; leaving closes all of them in the order of [safe].

    Args:
        opening: of the bench.
        names: of all instruments, the auxiliaries in the order in which they are started.
        roles: those that have a role.
        served: the process of a virtual bench, or None.
        elsewhere: names of instruments that a host owns; they have their place in the orders, and are not opened here.
        apart: address of each instrument with a role that its shape opens itself, by name.

    guard: who makes them safe. drivers, lines, found: by name.

    Raises:
        RunError, GuardianLost, UnsafeOutputs, LinkError, InstrumentError, ConfigError: everything is closed again.
    """

    def __init__(
        self, opening: Opening, names: Sequence[str], roles: Sequence[str], served: ServedBench | None,
        elsewhere: Sequence[str] = (), apart: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        self._opening, self._bench, self._roles, self._elsewhere = opening, opening.bench, tuple(roles), tuple(elsewhere)
        self._order = ordered([*elsewhere, *names], self._bench.safe.order)
        self._beside = [name for name in names if name not in roles]
        tables = self._bench.instruments
        settles_s = {name: tables[name].quantity("settle_s", "second") for name in self._beside}
        for name, settle_s in settles_s.items():
            opening.check_silence(2 * (tables[name].timeout_s or LINK_S), name)
            if not 0 <= settle_s <= 3600:
                raise ConfigError("no such time", where=f"{tables[name].place} settle", got=f"{settle_s:g} s",
                                  allowed="0 s to 1 h", outputs=UNTOUCHED)  # fmt: skip
        self._settles_s = settles_s
        addresses = {name: str(tables[name].resource) for name in names} if served is None else dict(served.resources)
        addresses |= apart
        self.guard = opening.guarded([addresses[name] for name in names])
        if served is not None:  # a bench that does not answer must not be waited for until the guardian takes that for a hang
            served.control.timeout_s = min(served.control.timeout_s, self._bench.guardian.silence_s / 2)
        self.drivers: dict[str, Any] = {}
        self.lines: dict[str, str] = {}
        self.found: dict[str, Instrument] = {}
        self._closes: dict[str, Callable[[], None]] = {}
        self._states: dict[str, SafeState] = {}
        opening.stack.push(self.guard.leaving(self._close))
        for name in [name for name in self._order if name not in elsewhere and name not in apart]:
            driver, who, line = opening.instrument(name, addresses[name], self.guard)
            self.drivers[name], self._closes[name] = driver, driver.close
            self.lines[name], self.found[name] = line, instrument(who)
        self.lines, self.found = ({name: of[name] for name in names if name in of} for of in (self.lines, self.found))  # type: ignore[assignment]

    def watched(self, driving: Sequence[str], apart: Sequence[SafeState] = ()) -> Auxiliaries:
        """Check what the auxiliaries hold, tell the guardian every safe state, and return them, nothing switched on yet.

        Args:
            driving: instruments with a role that drive something; their drivers must say what safe means.
            apart: safe states of those that the shape opens itself.

        Raises:
            ConfigError, OutOfRange: a value that an instrument does not have. GuardianLost: the guardian is not ready.
        """
        members = []
        for name in self._beside:
            table, driver = self._bench.instruments[name], self.drivers[name]
            ports = driver.holdable()
            default = {OUTPUT: True} if OUTPUT in ports else {}
            with _nothing_set():
                values = _values({**default, **table.set}, ports, f"{table.place} set")
                driver.rest_at(_values(table.safe, ports, f"{table.place} safe"))
                tolerance = _tolerance(table, values, ports)
            members.append(Auxiliary(name, driver, values, self._settles_s[name], tolerance))
        away = [state.name for state in apart]
        drive = [n for n in self._roles if n in (*driving, *away) or isinstance(self.drivers.get(n), Switchable)]
        ours = [name for name in (*drive, *self._beside) if name not in away]
        states = [*self._opening.safe_states({name: self.drivers[name] for name in ours}), *apart]
        self.watch(states)
        beside = [name for name in self._order if name in self._beside]
        turn = min((self._order.index(name) for name in (*drive, *self._elsewhere)), default=0)
        first = [name for name in beside if self._order.index(name) < turn]
        last = [name for name in beside if name not in first]
        return Auxiliaries(members, first, last, beat=self.guard.beat)

    def watch(self, states: Sequence[SafeState]) -> None:
        """Tell the guardian all safe states, these in place of what was known of the same instruments. Raises: as `watched`."""
        self._states |= {state.name: state for state in states}
        self.guard.watch(in_order(list(self._states.values()), self._order))

    def closed_by(self, close: Callable[[], None], names: Sequence[str]) -> None:
        """Let `close` of a device close these instruments, when it is the turn of the first of them."""
        first = ordered(names, self._order)[0]
        self._closes = {name: one for name, one in self._closes.items() if name not in names} | {first: close}

    def _close(self) -> None:
        """Close in the order of [safe], each whatever the others raise; the last error is raised."""
        with ExitStack() as stack:
            for name in reversed([name for name in self._order if name in self._closes]):
                stack.callback(self._closes[name])


def _values(given: Mapping[str, object], ports: Mapping[str, Port], where: str) -> dict[str, float]:
    """Values of a file in the units of their ports, checked. Raises: ConfigError, OutOfRange: nothing was set."""
    found = {}
    for name, value in given.items():
        if name not in ports:
            raise no_such("setting", name, ports, where)
        port = ports[name]
        if name == OUTPUT:
            if not isinstance(value, bool):
                raise ConfigError("output is on or off", where=where, got=shortened(value), allowed="true, false",
                                  todo="correct the value")  # fmt: skip
            found[name] = float(value)
            continue
        found[name] = number = _in_unit(value, port.unit, f"{where} {name}")
        try:
            port.check(torch.tensor([number], dtype=torch.float64))
        except OutOfRange as error:
            error.where, error.todo = f"{where} {name}", "correct the value, or the limits of this instrument in the bench file"
            raise
    return found


def _in_unit(value: object, unit: str, where: str) -> float:
    """`value` in `unit`; "3 dBm" is 3 where that is the unit of the port, though it is no factor. Raises: ConfigError."""
    if isinstance(value, str) and value.rstrip().endswith(f" {unit}"):
        value, unit = value.rstrip().removesuffix(unit), "1"
    return quantity(value, "dimensionless" if unit == "1" else unit, where)


@contextmanager
def _nothing_set() -> Iterator[None]:
    """Refusals in here come when the instruments are open and reset, and before anything was set."""
    try:
        yield
    except Refused as error:
        error.outputs = NOTHING_SET
        raise


def _tolerance(table: InstrumentTable, values: Mapping[str, float], ports: Mapping[str, Port]) -> dict[str, float]:
    """The tolerances that a file gives, in the units of the ports. Raises: ConfigError."""
    given = table.tolerance
    where = f"{table.place} tolerance"
    if given is None:
        return {}
    if isinstance(given, int | float):
        found = {name: float(given) for name in values if name != OUTPUT}
    else:
        unknown = next((name for name in given if name not in values or name == OUTPUT), None)
        if unknown is not None:
            raise no_such("setting", unknown, [name for name in values if name != OUTPUT], where)
        found = {name: _in_unit(value, ports[name].unit, f"{where} {name}") for name, value in given.items()}
    if any(value <= 0 for value in found.values()):
        raise ConfigError("a tolerance is above 0", where=where, got=str(given), todo="correct the value")  # fmt: skip
    return found
