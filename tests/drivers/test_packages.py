"""Who an instrument of a package is: what it says, and what is made of it."""

from __future__ import annotations

import pytest

from drivers.packages import PyMeasurePackage
from drivers.scpi import Identity


class Silent:
    @property
    def id(self) -> str:
        raise NotImplementedError


class Broken:
    @property
    def id(self) -> str:
        return self.wire.ask("*IDN?")  # type: ignore[attr-defined, no-any-return]


class Plain:
    id = " LASER 7 \n"


class Scpi:
    id = "Keysight,N7776C,MY1,1.0"


class Nameless: ...


def test_an_answer_is_kept_whole_and_an_instrument_that_cannot_say_has_the_name_of_its_class() -> None:
    who = PyMeasurePackage().who
    assert who(Scpi()) == Identity("Keysight", "N7776C", "MY1", "1.0")
    assert who(Plain()) == Identity("", "LASER 7", "", "")
    assert who(Silent()) == Identity("", "Silent", "", "")
    assert who(Nameless()) == Identity("", "Nameless", "", "")


def test_a_driver_that_fails_while_it_is_asked_is_not_taken_for_one_that_cannot_say() -> None:
    with pytest.raises(AttributeError, match="wire"):
        PyMeasurePackage().who(Broken())
