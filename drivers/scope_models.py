"""Which oscilloscopes a driver knows, and what they can do: samples/s, memory, words at the rails, averages.

Drivers have tables of models by the beginning of their name; drivers/scpi_digitizer.py has what all of them do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from drivers.scpi import Identity, Scpi
from drivers.waveform.record import Memory
from hil.errors import WrongInstrument

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Model:
    """Samples/s with one channel on, and the longest record that can be read."""

    rate_hz: float
    memory: Memory


@dataclass(frozen=True, slots=True)
class Rails:
    """Words with a meaning of their own.

    Args:
        low, high: at and beyond them the input was clipped.
        hole: nothing was acquired; None: the instrument has no such word.
    """

    low: int
    high: int
    hole: int | None = None


@dataclass(frozen=True, slots=True)
class Averaging:
    """How a scope averages records by itself.

    Args:
        most: records of an average, at most.
        commands: that set it, the number of records where "{}" stands.
        asked: questions for that number, by the name of the setting.
        waits: asks whether so many records were taken and the scope waits for the next edge.
        complete: asks whether the record is the average of so many.
        samples: of a record, at most; None: as many as of any other.
    """

    most: int
    commands: tuple[str, ...]
    asked: Mapping[str, str]
    waits: Callable[[Scpi, int], bool]
    complete: Callable[[Scpi, int], bool]
    samples: int | None = None


def known(models: Mapping[str, M], identity: Identity, allowed: str) -> M:
    """Find the model that answered by the beginning of its name. Raises: WrongInstrument: it is none of `models`."""
    name = _plain(identity.model)
    found = next((model for beginning, model in models.items() if name.startswith(_plain(beginning))), None)
    if found is None:
        raise unknown(identity, allowed)
    return found


def beginnings(models: Mapping[str, object]) -> str:
    """List the models that a driver knows, for messages."""
    return ", ".join(f"{name}…" for name in models)


def unknown(identity: Identity, allowed: str) -> WrongInstrument:
    """The error of an instrument that a driver of scopes does not know."""
    return WrongInstrument(
        "this is not a scope that the driver knows",
        where="scope",
        got=f"{identity.maker} {identity.model}",
        allowed=allowed,
        outputs="unchanged",
        todo="correct the address in the bench file",
    )


def paired(model: Model, numbers: tuple[int, ...]) -> Model:
    """Limits with these channels on: 1 and 2, and 3 and 4, share a converter and its memory; both of a pair have half of it."""
    if len({(number - 1) // 2 for number in numbers}) == len(numbers):
        return model
    return Model(model.rate_hz / 2, replace(model.memory, most=model.memory.most // 2))


def _plain(model: str) -> str:
    return model.upper().replace("-", "").replace(" ", "")
