"""The border to gest-api, the interface of generators that Xopt, libEnsemble and optimas share.

    ours drive others     Genetic(vocs), CMA(vocs), IPOP(vocs), Random(vocs) take a VOCS of gest-api
    others drive ours     strategy = "module:Class" in a search file; the class is made as Class(vocs=…, settings)

    here                      in their VOCS
    range                     [low, high]
    range, logarithmic        "log10 NAME": [log10 low, log10 high], as gest-api has no such ranges
    range of whole numbers    [low - 1/2, high + 1/2], rounded when it is tried
    choices                   a discrete variable, which not every generator takes

Generators of others draw from the global generators of Python, numpy and torch. All three are keyed around every call and given
back, so that a generator which draws from nothing else, or has a seed of its own, is a function of its seed, as ours are. One
that is not is refused at its first points: two of its kind are asked for them.

Source: gest-api 0.2, https://github.com/campa-consortium/gest-api.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from hil.errors import ConfigError, ForeignError
from hil.foreign import foreign
from hil.search.breeding import keyed
from hil.search.space import Dimension, Direction, Points, Problem, Value
from hil.seeding import key

if TYPE_CHECKING:
    from hil.search.generator import Generator

DIRECTIONS: Mapping[str, Direction] = {"MaximizeObjective": "MAXIMIZE", "MinimizeObjective": "MINIMIZE"}
LOG = "log10 "


def problem_of(vocs: Any) -> Problem:
    """Return a VOCS as ours are told it; a Problem as it is.

    Raises:
        ValueError: it has constraints, or dimensions or objectives that ours do not know.
    """
    if isinstance(vocs, Problem):
        return vocs
    if len(vocs.constraints):
        raise ValueError(f"this generator cannot accept constraints: {', '.join(vocs.constraints)}")
    objectives = {name: DIRECTIONS.get(type(one).__name__) for name, one in vocs.objectives.items()}
    known: dict[str, Direction] = {name: one for name, one in objectives.items() if one is not None}
    if not known or len(known) < len(objectives):
        raise ValueError("this generator needs objectives to maximize or minimize, one or more, and no others")
    constants = {name: one.value for name, one in vocs.constants.items()}
    return Problem(tuple(_dimension(name, one) for name, one in vocs.variables.items()), known, constants)


def _dimension(name: str, variable: Any) -> Dimension:
    kind = type(variable).__name__
    if kind == "DiscreteVariable":
        return Dimension(name, choices=tuple(sorted(variable.values, key=lambda value: (type(value).__name__, value))))
    if kind != "ContinuousVariable" or not all(map(math.isfinite, variable.domain)):
        raise ValueError(f"this generator cannot accept {name}, a {kind}")
    low, high = variable.domain
    return Dimension(name, float(low), float(high))


class Foreign:
    """A Generator of somebody else, told our problem by gest-api's names.

    Args:
        make: called with vocs, a VOCS of gest-api.
        problem: what is searched.
        seed: of its chance.
        population: points of a suggestion; None: as many as it likes.
        first: points at random that it is told of before it suggests any, for one that needs data to begin with.
        place: file and table, for messages.

    Raises:
        ConfigError: gest-api is not installed, or the generator refuses the problem.
    """

    def __init__(
        self, make: Callable[..., Generator], problem: Problem, seed: int, population: int | None, first: Points, place: str,
    ) -> None:  # fmt: skip
        self._problem, self._seed, self._population, self._place = problem, seed, population, place
        self._ways = {(found := _Way(one)).name: found for one in problem.dimensions}
        self._first, self._calls = first, 0
        self._asked: dict[tuple[Value, ...], Points] = {}  # as it named and numbered them
        vocs = self._vocs()
        self._inner = self._made(make, vocs)
        self._second: Generator | None = self._made(make, vocs)  # made alike, until both have suggested the same

    def suggest(self, num_points: int | None = None) -> Points:
        """Ask it, and translate.

        Raises:
            ConfigError: it is no function of its seed. ForeignError: it fails, or its points are none of the problem.
        """
        if self._first:
            first, self._first = self._first, []
            return first
        wanted = self._population if num_points is None else num_points
        found, second = self._suggested(self._inner, wanted), self._second
        if second is not None and found != self._suggested(second, wanted):
            raise ConfigError(
                "this generator is no function of its seed, so that a search by it could not be resumed", where=self._place,
                got="two of its kind, made and told alike, suggest different points",
                allowed="one that draws from the global generators of Python, numpy or torch, or has a seed of its own",
                outputs="as after the last trial: safe", todo="give it a seed in [search.generator]",
            )  # fmt: skip
        self._second = None
        self._calls += 1
        return [self._back(point) for point in found]

    def ingest(self, results: Points) -> None:
        """Tell it what came of its points, with the names and values that it gave them."""
        told = [{**self._own(result), **{name: result[name] for name in self._problem.objectives}} for result in results]
        for generator in (self._inner, self._second):
            if generator is not None:
                with foreign(self._place), self._keyed("ingest"):
                    generator.ingest([dict(point) for point in told])
        self._calls += 1

    def finalize(self) -> None:
        """Let it close what it has open."""
        for generator in (self._inner, self._second):
            end = getattr(generator, "finalize", None)
            if end is not None:
                with foreign(self._place):
                    end()

    def _back(self, point: dict[str, Any]) -> dict[str, Any]:
        with foreign(self._place):
            values = {way.dimension.name: way.back(point[name]) for name, way in self._ways.items()}
        self._asked.setdefault(tuple(values.values()), []).append(point)
        return {**values, **self._problem.constants}

    def _own(self, result: Mapping[str, Any]) -> dict[str, Any]:
        asked = self._asked.get(tuple(result[one.name] for one in self._problem.dimensions))
        if asked:
            return asked.pop(0)
        return {**{name: way.forth(result[way.dimension.name]) for name, way in self._ways.items()}, **self._problem.constants}

    def _made(self, make: Callable[..., Generator], vocs: Any) -> Generator:
        try:
            with foreign(self._place), self._keyed("begin"):
                return make(vocs=vocs)
        except ForeignError as error:
            raise ConfigError(
                "the generator does not take this search", where=self._place, got=error.got, at=error.at,
                outputs="untouched; nothing was opened", allowed="dimensions, objectives and settings that it knows",
                todo="change [search.generator], [search.space] or objectives",
            ) from error  # fmt: skip

    def _suggested(self, generator: Generator, num_points: int | None) -> Points:
        with foreign(self._place), self._keyed("suggest"):
            return [dict(point) for point in generator.suggest(num_points)]

    @contextmanager
    def _keyed(self, what: str) -> Iterator[None]:
        with keyed(self._seed, self._calls, f"generator {what}"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(self._seed, self._calls, f"torch {what}"))
            yield

    def _vocs(self) -> Any:
        try:
            from gest_api.vocs import VOCS
        except ImportError as error:
            raise ConfigError(
                "gest-api is not installed", where=self._place, got=str(error), outputs="untouched; nothing was opened",
                allowed="genetic, cma, ipop or random without it", todo="pip install 'hil[generators]'",
            ) from error  # fmt: skip
        variables = {name: way.variable() for name, way in self._ways.items()}
        return VOCS(variables=variables, objectives=dict(self._problem.objectives), constants=dict(self._problem.constants))


class _Way:
    """How a dimension goes into a VOCS and comes back."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        self.name = LOG + dimension.name if dimension.logarithmic else dimension.name

    def variable(self) -> Any:
        """A set for a discrete variable, or [low, high]."""
        one = self.dimension
        if one.choices:
            return set(one.choices)
        low, high = (one.low - 0.5, one.high + 0.5) if one.whole else (one.low, one.high)
        return [math.log10(low), math.log10(high)] if one.logarithmic else [low, high]

    def forth(self, value: Value) -> Value:
        """Return what the VOCS has for a value."""
        return math.log10(float(value)) if self.dimension.logarithmic else value

    def back(self, value: Any) -> Value:
        """Return the value of the dimension; one that rounding left outside of the range is its end. Raises: ValueError."""
        one = self.dimension
        if one.choices:
            return one.choices[one.choices.index(value)]
        number = 10 ** float(value) if one.logarithmic else float(value)
        slack = 0.5 if one.whole else 1e-9 * (one.high - one.low)
        if not one.low - slack <= number <= one.high + slack:
            raise ValueError(f"{self.name} = {value!r}, not in {self.variable()}")
        found = min(max(number, one.low), one.high)
        return round(found) if one.whole else found
